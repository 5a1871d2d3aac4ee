package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

const pgBin = "/usr/lib/postgresql/15/bin/"

// postgres does what the entry point of the official image does: the data belongs to a
// user of its own, and is made where there is none.
func postgres() error {
	data := os.Getenv("PGDATA")
	if err := as("postgres", data, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		if err := initialise(data); err != nil {
			return err
		}
	}
	// The synchronous commit that a database stands for is the default.
	return syscall.Exec(pgBin+"postgres", []string{
		"postgres", "-D", data, "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp", "-c", "shared_buffers=16MB",
	}, os.Environ())
}

func initialise(data string) error {
	password := filepath.Join(os.TempDir(), "password")
	if err := os.WriteFile(password, []byte(os.Getenv("POSTGRES_PASSWORD")), 0o600); err != nil {
		return err
	}
	defer os.Remove(password)
	cmd := exec.Command(pgBin+"initdb", "--no-sync", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", password)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	hba, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = hba.WriteString("host all all all scram-sha-256\n")
	return errors.Join(err, hba.Close())
}

func redis(args []string) error {
	if err := as("redis", "/data", 0o755); err != nil {
		return err
	}
	args = append([]string{"redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"}, args...)
	return syscall.Exec("/usr/bin/redis-server", args, os.Environ())
}

// as gives a folder to a user and becomes that user.
func as(name, dir string, mode fs.FileMode) error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(dir, uid, gid), os.Chmod(dir, mode)); err != nil {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid))
}
