// Command apps is the glue between the software in the images of the end-to-end tests
// and their containers, which have neither a shell script nor a client for databases:
//
//	apps postgres             makes a cluster on the first start, then is PostgreSQL
//	apps redis [ARG…]         is Redis with its data in /data
//	apps shop -db psql|sqlite serves rows of a database over HTTP
//	apps tree make DIR        fills a folder with all that a file system can hold
//	apps tree list DIR        prints all there is to say about a folder, line by line
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apps:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("which one? See the source")
	}
	switch {
	case args[0] == "postgres":
		return postgres()
	case args[0] == "redis":
		return redis(args[1:])
	case args[0] == "shop":
		return shop(args[1:])
	case args[0] == "tree" && len(args) == 3 && args[1] == "make":
		return makeTree(args[2])
	case args[0] == "tree" && len(args) == 3 && args[1] == "list":
		return listTree(args[2], os.Stdout)
	}
	return fmt.Errorf("there is no %q", args)
}
