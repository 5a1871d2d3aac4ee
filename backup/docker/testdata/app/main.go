// Command app is an application for tests.
//
//	app run             runs until it is told to end. Environment: NOTE (a file that gets a
//	                    line at each start and end), WRITE (a file that is written to all
//	                    the time), STUBBORN (does not end by itself), HEALTHY_AFTER (time
//	                    until "app healthy" says so), SLOW_END (time that ending takes)
//	app once            ends at once
//	app healthy         a health check
//	app note FILE TEXT  adds a line to a file
//	app fill FILE N     writes N megabytes that cannot be compressed
//	app fail TEXT       says TEXT and ends with code 3
//	sh -c TEXT          adds TEXT to /data/shell
package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const healthFile = "/tmp/healthy"

func main() {
	if filepath.Base(os.Args[0]) == "sh" {
		note("/data/shell", os.Args[len(os.Args)-1])
		return
	}
	switch os.Args[1] {
	case "run":
		run()
	case "once":
	case "healthy":
		if _, err := os.Stat(healthFile); err != nil {
			os.Exit(1)
		}
	case "note":
		note(os.Args[2], os.Args[3])
	case "fill":
		n, err := strconv.ParseInt(os.Args[3], 10, 64)
		f, ferr := os.Create(os.Args[2])
		if err != nil || ferr != nil {
			os.Exit(4)
		}
		if _, err := io.CopyN(f, rand.Reader, n<<20); err != nil {
			os.Exit(4)
		}
	case "fail":
		fmt.Println(os.Args[2])
		os.Exit(3)
	}
}

func run() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if os.Getenv("STUBBORN") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	_ = os.MkdirAll("/tmp", 0o777)
	_ = os.Remove(healthFile)
	note(os.Getenv("NOTE"), "start")
	healthy := time.After(duration("HEALTHY_AFTER"))
	tick := time.NewTicker(10 * time.Millisecond)
	for n := 0; ; n++ {
		select {
		case <-end:
			<-time.After(duration("SLOW_END"))
			note(os.Getenv("NOTE"), "end")
			return
		case <-healthy:
			_ = os.WriteFile(healthFile, nil, 0o600)
		case <-tick.C:
			note(os.Getenv("WRITE"), fmt.Sprint(n))
		}
	}
}

func duration(name string) time.Duration {
	d, _ := time.ParseDuration(os.Getenv(name))
	return d
}

func note(file, text string) {
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	fmt.Fprintln(f, text)
	f.Close()
}
