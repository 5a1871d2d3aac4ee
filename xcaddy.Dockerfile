# Caddy with the modules of Dentropy Cloud, built by xcaddy from this checkout:
#
#	docker build -f xcaddy.Dockerfile -t caddy-dentropy .
#	docker run --rm caddy-dentropy list-modules
#
# The base image is an argument, so that it can be pinned by digest:
#
#	docker build -f xcaddy.Dockerfile --build-arg GO_IMAGE=golang:1.26.8-bookworm@sha256:… .
#
# Add further plugins with another --with below; the DNS provider cloudflare is part of
# the modules.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm
FROM ${GO_IMAGE} AS build
ARG XCADDY_VERSION=v0.4.5
ARG CADDY_VERSION=v2.11.9
ENV CGO_ENABLED=0 GOFLAGS=-trimpath
RUN go install github.com/caddyserver/xcaddy/cmd/xcaddy@${XCADDY_VERSION}
WORKDIR /src
# The modules alone first: they are fetched again only when these two files change.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN xcaddy build ${CADDY_VERSION} \
	--output /out/caddy \
	--with github.com/dentropy/dentropycloud/caddymodule \
	--replace github.com/dentropy/dentropycloud=.

FROM scratch
# The roots of public authorities are compiled in.
COPY --from=build /out/caddy /caddy
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config DENTROPY_DATA_DIR=/data
EXPOSE 80 443 443/udp
ENTRYPOINT ["/caddy"]
CMD ["dentropy", "up"]
