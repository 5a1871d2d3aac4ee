package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// load asks urls steadily and counts what fails.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	served int
	errs   []error
}

// pace is how often each worker asks: enough to have a request in every moment that
// matters, and far below what would load the machine.
const pace = 5 * time.Millisecond

// startLoad starts workers, half of them on a connection per request.
func (d *dentropy) startLoad(workers int, urls ...string) *load {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	l := &load{cancel: cancel}
	d.t.Cleanup(func() { l.end() })
	for n := range workers {
		c, err := d.client(n%2 == 0)
		if err != nil {
			d.t.Fatal(err)
		}
		l.wg.Go(func() { l.work(ctx, c, n, urls) })
	}
	return l
}

func (l *load) work(ctx context.Context, c *http.Client, n int, urls []string) {
	defer c.CloseIdleConnections()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		url := urls[n%len(urls)]
		n++
		a, err := fetch(c, url)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s: status %d: %.100s", url, a.status, a.body)
		}
		l.mu.Lock()
		l.served++
		if err != nil {
			l.errs = append(l.errs, err)
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// end stops the load and gives what it has seen.
func (l *load) end() (served int, failed []error) {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served, l.errs
}

// count gives the number of requests that were answered or failed so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served + len(l.errs)
}

// mustBeClean ends the load; not one request may have failed.
func (l *load) mustBeClean(t *testing.T) {
	t.Helper()
	sofar := l.count()
	eventually(t, "the load goes on after the change", func() error {
		if n := l.count(); n < sofar+10 {
			return fmt.Errorf("%d requests since", n-sofar)
		}
		return nil
	})
	served, failed := l.end()
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(failed), served, failed[0])
	}
	if served < 10 {
		t.Errorf("only %d requests were made, that proves nothing", served)
	}
	t.Logf("%d requests, %d failed", served, len(failed))
}

// socket is an open websocket that is used all the time.
type socket struct {
	c      *websocket.Conn
	cancel context.CancelFunc
	done   chan error
	echoes int // valid once done has been read
}

// openSocket opens a websocket to the echo of a host and keeps it busy.
func (d *dentropy) openSocket(host string) *socket {
	d.t.Helper()
	client, err := d.client(false)
	if err != nil {
		d.t.Fatal(err)
	}
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = false // the upgrade is of HTTP/1.1
	client.Transport.(*http.Transport).TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	client.Timeout = 0 // it would end the websocket
	c, _, err := websocket.Dial(d.t.Context(), fmt.Sprintf("wss://%s:%d/ws", host, d.https), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		d.t.Fatalf("open websocket to %s: %v", host, err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	s := &socket{c: c, cancel: cancel, done: make(chan error, 1)}
	go func() { s.done <- s.work(ctx) }()
	d.t.Cleanup(func() { c.CloseNow() })
	return s
}

func (s *socket) work(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		message := strconv.Itoa(s.echoes)
		// Not ctx: the library closes a websocket whose context ends during a call.
		if err := s.c.Write(context.WithoutCancel(ctx), websocket.MessageText, []byte(message)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		_, got, err := s.c.Read(context.WithoutCancel(ctx))
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if string(got) != message {
			return fmt.Errorf("echo of %q is %q", message, got)
		}
		s.echoes++
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mustBeOpen ends the use of a websocket that must have lived until now.
func (s *socket) mustBeOpen(t *testing.T) {
	t.Helper()
	s.cancel()
	if err := <-s.done; err != nil {
		t.Errorf("websocket was cut after %d messages: %v", s.echoes, err)
	}
	if s.echoes == 0 {
		t.Error("no message went through the websocket")
	}
}

// getHTTP3 asks a host over HTTP/3.
func (d *dentropy) getHTTP3(host, path string) (answer, error) {
	cfg, err := d.tlsConfig(host)
	if err != nil {
		return answer{}, err
	}
	transport := &http3.Transport{
		TLSClientConfig: cfg,
		Dial: func(ctx context.Context, _ string, tlsCfg *tls.Config, quicCfg *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(d.https)), tlsCfg, quicCfg)
		},
	}
	defer transport.Close()
	return fetch(&http.Client{Transport: transport, Timeout: 10 * time.Second}, d.url(host, path))
}

// handshake does a TLS handshake for a name and gives the error, if any.
func (d *dentropy) handshake(name string) error {
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} // only: is there a certificate?
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.https)))
	if err != nil {
		return err
	}
	return errors.Join(c.Close())
}
