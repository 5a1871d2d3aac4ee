// Command age decrypts as age -d -i KEY [FILE] does, for tests where there is no age.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
)

func main() {
	if err := decrypt(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "age:", err)
		os.Exit(1)
	}
}

func decrypt(args []string) error {
	if len(args) < 3 || len(args) > 4 || args[0] != "-d" || args[1] != "-i" {
		return errors.New("usage: age -d -i KEY [FILE]")
	}
	key, err := os.Open(args[2])
	if err != nil {
		return err
	}
	ids, err := age.ParseIdentities(key)
	if err != nil {
		return err
	}
	in := os.Stdin
	if len(args) == 4 {
		if in, err = os.Open(args[3]); err != nil {
			return err
		}
	}
	plain, err := age.Decrypt(in, ids...)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, plain)
	return err
}
