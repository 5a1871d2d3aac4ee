// Command serve is what the containers of the tests run. "serve PORT" serves HTTP
// there; "serve healthy" fails where a file /sick exists.
package main

import (
	"net/http"
	"os"
)

func main() {
	if os.Args[1] == "healthy" {
		if _, err := os.Stat("/sick"); err == nil {
			os.Exit(1)
		}
		return
	}
	if err := http.ListenAndServe(":"+os.Args[1], http.NotFoundHandler()); err != nil {
		os.Exit(1)
	}
}
