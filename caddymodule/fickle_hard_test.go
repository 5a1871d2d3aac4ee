package caddymodule

import (
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// fickle is a handler that can be set up at some times only.
type fickle struct{}

var fickleFails atomic.Bool

func init() {
	caddy.RegisterModule(fickle{})
	httpcaddyfile.RegisterHandlerDirective("fickle", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return new(fickle), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("fickle", httpcaddyfile.Before, "header")
}

func (fickle) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.fickle", New: func() caddy.Module { return new(fickle) }}
}

func (fickle) Provision(caddy.Context) error {
	if fickleFails.Load() {
		return errWrong
	}
	return nil
}

func (fickle) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}
