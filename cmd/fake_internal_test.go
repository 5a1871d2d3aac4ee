package dentropycmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/dentropy/dentropycloud/internal/upinstance"
)

// The modules that package caddymodule has, as far as a configuration needs them:
// one route, app.test, and a certificate for every name that ends in .test.

func init() {
	caddy.RegisterModule(fakeApp{})
	caddy.RegisterModule(fakeHandler{})
	caddy.RegisterModule(fakeManager{})
	caddy.RegisterModule(fakePermission{})
	caddy.RegisterModule(fakeAdmin{})
}

const fakeHost = "app.test"

// fakeLoads counts the configurations that were provisioned.
var fakeLoads atomic.Int64

type fakeApp struct {
	Sources   []json.RawMessage `json:"sources,omitempty"`
	Dialects  []json.RawMessage `json:"dialects,omitempty"`
	TLS       json.RawMessage   `json:"tls,omitempty"`
	Hold      caddy.Duration    `json:"hold,omitempty"`
	HoldQueue int               `json:"hold_queue,omitempty"`
	Listeners []string          `json:"listeners,omitempty"`
}

func (fakeApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dentropy", New: func() caddy.Module { return new(fakeApp) }}
}
func (*fakeApp) Start() error                  { return nil }
func (*fakeApp) Stop() error                   { return nil }
func (*fakeApp) Provision(caddy.Context) error { fakeLoads.Add(1); return nil }

type fakeHandler struct {
	Redirect  bool `json:"redirect,omitempty"`
	HTTPSPort int  `json:"https_port,omitempty"`
}

func (fakeHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.dentropy", New: func() caddy.Module { return new(fakeHandler) }}
}

func (h *fakeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	host, _ := repl.GetString("http.request.host")
	if host != fakeHost {
		return next.ServeHTTP(w, r)
	}
	if h.Redirect {
		http.Redirect(w, r, "https://"+host+":"+strconv.Itoa(h.HTTPSPort)+r.RequestURI, http.StatusPermanentRedirect)
		return nil
	}
	_, err := fmt.Fprintf(w, "container, %s", r.Proto)
	return err
}

type fakeManager struct{ cert *tls.Certificate }

func (fakeManager) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.get_certificate.dentropy", New: func() caddy.Module { return new(fakeManager) }}
}

func (m *fakeManager) Provision(caddy.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	m.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return nil
}

func (m *fakeManager) GetCertificate(context.Context, *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.cert, nil
}

type fakePermission struct {
	Deny bool `json:"deny,omitempty"`
}

func (fakePermission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.permission.dentropy", New: func() caddy.Module { return new(fakePermission) }}
}

func (fakePermission) CertificateAllowed(context.Context, string) error {
	return errors.New("not allowed")
}

type fakeAdmin struct{}

func (fakeAdmin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.dentropy", New: func() caddy.Module { return new(fakeAdmin) }}
}

func (fakeAdmin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "POST /dentropy/reload", Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			err := upinstance.Reload(r.Context())
			switch {
			case errors.Is(err, upinstance.ErrNone):
				w.WriteHeader(http.StatusConflict)
			case err != nil:
				w.WriteHeader(http.StatusUnprocessableEntity)
			}
			if err != nil {
				return json.NewEncoder(w).Encode(map[string]string{"error": err.Error(), "hint": "the config from before is still in force"})
			}
			_, err = io.WriteString(w, "{}\n")
			return err
		})},
		{Pattern: "GET /dentropy/sources", Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, `{"sources":[]}`)
			return err
		})},
	}
}
