//go:build !unix

package dentropycmd

import (
	"context"
	"net"
)

// openSockets only looks whether the ports are free: Caddy opens them.
func openSockets(ctx context.Context, o Options) (*sockets, error) {
	s := &sockets{httpPort: o.HTTPPort, httpsPort: o.HTTPSPort, bind: o.binds()}
	for _, bind := range s.bind {
		for _, w := range []struct {
			setting string
			port    int
		}{{"http-port", o.HTTPPort}, {"https-port", o.HTTPSPort}} {
			var lc net.ListenConfig
			ln, err := lc.Listen(ctx, network("tcp", bind), listenerAddress(bind, w.port))
			if err != nil {
				return nil, socketError(o, err, w.setting, "tcp", bind, w.port)
			}
			_ = ln.Close()
		}
		s.listeners = append(s.listeners, Listener{
			Bind: bind, HTTP: listenerAddress(bind, o.HTTPPort), HTTPS: listenerAddress(bind, o.HTTPSPort),
		})
	}
	return s, nil
}

func (s *sockets) close()   {}
func (s *sockets) release() {}
