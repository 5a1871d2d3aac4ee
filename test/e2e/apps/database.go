package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// database speaks SQL to the database's own command-line client, which stays open: an
// SQLite that is open has a write-ahead log.
type database struct {
	argv []string

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	asked int
}

const schema = "CREATE TABLE IF NOT EXISTS entries(key text PRIMARY KEY, value text)"

func openDatabase(kind string) (*database, error) {
	switch kind {
	case "psql":
		return &database{argv: []string{pgBin + "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", "SET client_min_messages=warning", "-f", "-"}}, nil
	case "sqlite":
		return &database{argv: []string{
			"/usr/bin/sqlite3", "-batch", "-bail", "-cmd", ".timeout 5000",
			"-cmd", "PRAGMA journal_mode=WAL", "-cmd", "PRAGMA synchronous=FULL", "/data/notes.db",
		}}, nil
	}
	return nil, fmt.Errorf("database %q: neither psql nor sqlite", kind)
}

// query gives the lines of the answer. The client ends on the first error, and is
// started again for the next query.
func (d *database) query(sql string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		if err := d.startLocked(); err != nil {
			return nil, err
		}
		if _, err := d.askLocked(schema); err != nil {
			return nil, err
		}
	}
	return d.askLocked(sql)
}

func (d *database) startLocked() error {
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.in, d.out = cmd, in, bufio.NewReader(out)
	return nil
}

func (d *database) askLocked(sql string) ([]string, error) {
	d.asked++
	end := fmt.Sprint("end ", d.asked)
	if _, err := fmt.Fprintf(d.in, "%s;\nSELECT '%s';\n", sql, end); err != nil {
		return nil, errors.Join(err, d.closeLocked())
	}
	var lines []string
	for {
		line, err := d.out.ReadString('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read the answer to %q: %w", sql, err), d.closeLocked())
		}
		line = strings.TrimSuffix(line, "\n")
		if line == end {
			return lines, nil
		}
		lines = append(lines, line)
	}
}

func (d *database) closeLocked() error {
	if d.cmd == nil {
		return nil
	}
	d.in.Close()
	err := d.cmd.Wait()
	d.cmd = nil
	return err
}

func (d *database) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closeLocked()
}
