// Command helper is the helper of the tests: the verbs that the real binary has, and
// nothing else.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/dentropy/dentropycloud/backup/docker"
	"github.com/dentropy/dentropycloud/backup/volume"
)

func main() {
	if len(os.Args) < 3 || os.Args[1] != "helper" {
		fmt.Fprintln(os.Stderr, "usage: helper helper TASK JSON")
		os.Exit(2)
	}
	if os.Args[2] == "guard" {
		os.Exit(docker.GuardMain(context.Background(), os.Args[3:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(volume.Main(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
}
