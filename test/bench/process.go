package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a running program under measurement.
type process struct {
	cmd   *exec.Cmd
	http  string // host:port
	https string
	admin *http.Client // of its admin API
	base  string
	data  string
	log   *os.File
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// up starts `dentropy up` watching endpoint, and waits until it listens.
func (b *bench) up(endpoint string, extra ...string) (*process, error) {
	data, err := os.MkdirTemp(b.dir, "up")
	if err != nil {
		return nil, err
	}
	return b.upIn(data, endpoint, extra...)
}

func (b *bench) upIn(data, endpoint string, extra ...string) (*process, error) {
	h, err := freePort()
	if err != nil {
		return nil, err
	}
	s, err := freePort()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(data, "admin.sock")
	p := &process{http: fmt.Sprint("127.0.0.1:", h), https: fmt.Sprint("127.0.0.1:", s), data: data, base: "http://admin"}
	p.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	for i := 0; i+1 < len(extra); i++ { // ports that were chosen already
		switch extra[i] {
		case "--http-port":
			p.http = "127.0.0.1:" + extra[i+1]
		case "--https-port":
			p.https = "127.0.0.1:" + extra[i+1]
		}
	}
	args := append([]string{"up", "--bind", "127.0.0.1", "--http-port", strconv.Itoa(h), "--https-port", strconv.Itoa(s), "--data-dir", data, "--docker", endpoint}, extra...)
	if err := p.start(b, args...); err != nil {
		return nil, err
	}
	return p, p.awaitListening()
}

// caddy starts the same binary as a plain Caddy with config (Caddyfile or JSON).
func (b *bench) caddy(name, config string) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, "caddy")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &process{data: dir}
	return p, p.start(b, "run", "--config", file)
}

func (p *process) start(b *bench, args ...string) error {
	var err error
	if p.log, err = os.Create(p.data + ".log"); err != nil {
		return err
	}
	p.cmd = exec.Command(b.binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.data, "XDG_CONFIG_HOME="+p.data)
	return p.cmd.Start()
}

func (p *process) awaitListening() error {
	return until(30*time.Second, "the program listens: see "+p.log.Name(), func() bool {
		c, err := net.Dial("tcp", p.http)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
	_ = p.log.Close()
}

// cpu is the processor time used so far.
func (p *process) cpu() (time.Duration, error) {
	// schedstat counts in nanoseconds, but for one thread each
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// heap is the live heap after a collection, and the resident memory.
func (p *process) memory() (heap, rss int64, err error) {
	for range 2 { // finalizers may free more
		resp, err := p.admin.Get(p.base + "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return 0, 0, err
		}
		scan := bufio.NewScanner(resp.Body)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			if v, ok := strings.CutPrefix(scan.Text(), "# HeapAlloc = "); ok {
				heap, _ = strconv.ParseInt(v, 10, 64)
			}
		}
		_ = resp.Body.Close()
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			rss, _ = strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			rss *= 1024
		}
	}
	return heap, rss, nil
}

// metric reads one value of /metrics, labels included in its name.
func (p *process) metric(name string) (float64, error) {
	resp, err := p.admin.Get(p.base + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if v, ok := strings.CutPrefix(string(line), name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// until polls ok.
func until(limit time.Duration, what string, ok func() bool) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end.C:
			return errors.New("timed out: " + what)
		case <-tick.C:
		}
	}
	return nil
}

// client speaks HTTP/1.1 on one kept connection, with as little work of its own
// as possible: it shares the cores with what is measured.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func newClient(c net.Conn) *client { return &client{c, bufio.NewReader(c)} }

func dialClient(address string) (*client, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return newClient(c), nil
}

// get asks for / of host and gives the status. Every answer here has a
// Content-Length, or none and no body.
func (c *client) get(host string) (int, error) {
	if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		return 0, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("bad status line %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		const key = "content-length:"
		if len(line) > len(key) && strings.EqualFold(string(line[:len(key)]), key) {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[len(key):]))); err != nil {
				return 0, err
			}
		}
	}
	_, err = c.r.Discard(length)
	return status, err
}

// must asks for / of host; any status but 200 is an error.
func (c *client) must(host string) error {
	status, err := c.get(host)
	if err == nil && status != 200 {
		err = fmt.Errorf("%s: status %d", host, status)
	}
	return err
}

func (c *client) close() { _ = c.conn.Close() }

// backend answers every request without a body with two bytes, and does next to
// nothing else for it.
func backend() (port int, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go answer(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, func() { _ = l.Close() }, nil
}

func answer(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) > 2 {
			continue // one more header
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}
