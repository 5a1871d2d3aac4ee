package dentropycmd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const exitStatusHelp = `
EXIT STATUS

	0  the running one answered
	1  it did not, or refused: the reason is on standard error
`

// setUpQuery fills in a command that asks for one JSON document and shows it.
func setUpQuery[T any](cmd *cobra.Command, uri func(args []string) string, show func(*printer, T) error) {
	addressFlags(cmd.Flags())
	cmd.Flags().Bool("json", false, "print the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd.Flags(), os.Getenv)
		if err != nil {
			return err
		}
		raw, err := c.get(cmd.Context(), uri(args))
		if err != nil {
			return err
		}
		var answer T
		decodeErr := json.Unmarshal(raw, &answer)
		p := newPrinter(cmd.OutOrStdout(), os.Getenv)
		if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
			if err := printJSON(p.w, raw); err != nil {
				return err
			}
			return verdict(answer)
		}
		if decodeErr != nil {
			return fmt.Errorf("the answer cannot be read (is the running one another version? --json shows it as it is): %w", decodeErr)
		}
		return cmp.Or(show(p, answer), p.err)
	}
}

// verdict is the exit status of an answer that may say "bad".
func verdict(answer any) error {
	if w, ok := answer.(whyAnswer); ok {
		for _, s := range w.Steps {
			if s.State == "bad" {
				return errQuiet
			}
		}
	}
	return nil
}

func setUpRoutes(cmd *cobra.Command) {
	cmd.Use = "routes [<host>] [flags]"
	cmd.Short = "Lists what is served, and by which containers"
	cmd.Long = `
Lists the routes: host and path, state, the containers behind them, and below each
what is wrong with it. With a host, only the routes of that host.

States: serving; holding (no container is ready, requests wait); refused (another
container has the host); error (its labels cannot be used).

A state with "stale" behind it is the last that was known: the source does not
answer at the moment, see 'sources'.
` + exitStatusHelp
	cmd.Args = atMostOneHost
	setUpQuery(cmd, func(args []string) string {
		if len(args) == 1 {
			return "/dentropy/routes/" + url.PathEscape(args[0])
		}
		return "/dentropy/routes"
	}, showRoutes)
}

func setUpWhy(cmd *cobra.Command) {
	cmd.Use = "why <host> [flags]"
	cmd.Short = "Explains why a host name works, or why not"
	cmd.Long = `
Walks the whole way of a request for a host: the labels that were seen, the route
made of them, the address of the container and why that one, the certificate with
its last error and next try, and whether the container answers.

EXIT STATUS

	0  every step is well, or only waits
	1  a step is bad, or the running one could not be asked
`
	cmd.Args = oneHost
	setUpQuery(cmd, func(args []string) string {
		return "/dentropy/why?host=" + url.QueryEscape(args[0])
	}, showWhy)
}

func setUpCerts(cmd *cobra.Command) {
	cmd.Use = "certs [flags]"
	cmd.Short = "Lists the certificates of discovered names"
	cmd.Long = `
Lists the certificate of each discovered name: its state, when it ends, who issued
it, and where one could not be had the last error and the time of the next try.
` + exitStatusHelp
	cmd.Args = noArgs
	setUpQuery(cmd, func([]string) string { return "/dentropy/certificates" }, showCerts)
}

func setUpSources(cmd *cobra.Command) {
	cmd.Use = "sources [flags]"
	cmd.Short = "Lists the Docker engines that are watched"
	cmd.Long = `
Lists what is watched for containers, and whether it answers. While one does not,
its routes go on as they were.
` + exitStatusHelp
	cmd.Args = noArgs
	setUpQuery(cmd, func([]string) string { return "/dentropy/sources" }, showSources)
}

func setUpEvents(cmd *cobra.Command) {
	cmd.Use = "events [flags]"
	cmd.Short = "Follows what happens: routes, containers, certificates"
	cmd.Long = `
Prints one line for everything that happens, until Ctrl-C. A reload of the running
one is survived. With --json each line is one JSON object.

EXIT STATUS

	0  ended by Ctrl-C
	1  the running one could not be asked, or has stopped
`
	cmd.Args = noArgs
	addressFlags(cmd.Flags())
	cmd.Flags().Bool("json", false, "print each event as one line of JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(cmd.Flags(), os.Getenv)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		asJSON, _ := cmd.Flags().GetBool("json")
		p := newPrinter(cmd.OutOrStdout(), os.Getenv)
		return follow(ctx, c, func(data []byte) error { return showEvent(p, data, asJSON) })
	}
}

// reconnectWait keeps a stream that ends at once from becoming a busy loop.
const reconnectWait = time.Second

// follow reads the stream of events, and takes it up again where it ends: a reload
// of the other side ends it.
func follow(ctx context.Context, c *client, show func(data []byte) error) error {
	last := "" // id of the last event that was shown
	for {
		uri := "/dentropy/events"
		if last != "" {
			uri += "?since=" + url.QueryEscape(last)
		}
		if err := stream(ctx, c, uri, &last, show); err != nil && ctx.Err() == nil {
			return err
		}
		timer := time.NewTimer(reconnectWait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// stream reads server-sent events until the stream ends, which is no error.
func stream(ctx context.Context, c *client, uri string, last *string, show func(data []byte) error) error {
	resp, err := c.do(ctx, http.MethodGet, uri)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1 << 20 // an event is a few hundred bytes
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, most)
	var data []byte
	id := *last
	for sc.Scan() {
		name, value, _ := bytes.Cut(sc.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			data = append(append(data, value...), '\n')
		case "id":
			id = string(value)
		case "": // a blank line ends an event, a comment is a sign of life
			if len(sc.Bytes()) > 0 || len(data) == 0 {
				continue
			}
			if err := show(bytes.TrimSpace(data)); err != nil {
				return err
			}
			data, *last = data[:0], id
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return errors.New("the stream of events holds a line that is too long")
	}
	return nil
}

// showEvent prints an event as "time kind host object: text", with what else it
// holds as key=value.
func showEvent(p *printer, data []byte, asJSON bool) error {
	if asJSON {
		p.printf("%s\n", data)
		return p.err
	}
	var fields map[string]any
	if json.Unmarshal(data, &fields) != nil {
		p.printf("%s\n", clean(string(data)))
		return p.err
	}
	take := func(name string) string {
		s, ok := fields[name].(string)
		if ok {
			delete(fields, name)
		}
		return clean(s)
	}
	delete(fields, "seq") // of use to programs only
	at := take("time")
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
		at = t.Local().Format(time.TimeOnly)
	}
	words := []string{p.paint(faint, at), fmt.Sprintf("%-11s", take("kind"))}
	for _, name := range []string{"host", "object", "text"} {
		if s := take(name); s != "" {
			words = append(words, s)
		}
	}
	if s := take("error"); s != "" {
		words = append(words, p.paint(red, "error: "+s))
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if v := eventValue(fields[k]); v != "" {
			words = append(words, clean(k)+"="+v)
		}
	}
	p.printf("%s\n", strings.Join(words, "  "))
	return p.err
}

// eventValue shows a value, quoted where it would not be one word; "" for nothing.
func eventValue(v any) string {
	s, ok := v.(string)
	if !ok {
		if v == nil {
			return ""
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return clean(string(raw))
	}
	if strings.ContainsAny(s, " \t\"") {
		s = `"` + strings.ReplaceAll(s, `"`, `'`) + `"`
	}
	return clean(s)
}
