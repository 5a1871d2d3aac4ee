package dentropycmd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/dentropy/dentropycloud/backup"
)

// asker asks questions on a terminal. Every question has a default, which Enter takes;
// a "." takes the defaults of all questions that would follow.
type asker struct {
	in  *bufio.Reader
	out io.Writer
	p   *printer
	// rest says that a "." was given.
	rest bool
	// ctx ends the wait for an answer; nil: a signal ends the process.
	ctx context.Context
	// tty is the terminal behind in; nil where it is none.
	tty *os.File
}

var errNoAnswer = errors.New("no answer: nothing was changed")

// talker is what stands for a terminal in tests.
type talker interface {
	io.Reader
	Talks() bool
}

// newAsker gives an asker if there is somebody to ask: on standard input, or on the
// terminal of the process where standard input is used otherwise. nil: nobody.
func newAsker(cmd *cobra.Command, inputTaken bool) (*asker, func()) {
	none := func() {}
	out := cmd.ErrOrStderr()
	made := func(r io.Reader, w io.Writer) *asker {
		p := newPrinter(w, os.Getenv)
		tty, _ := r.(*os.File)
		return &asker{in: bufio.NewReader(r), out: w, p: p, tty: tty}
	}
	in := cmd.InOrStdin()
	if t, ok := in.(talker); ok && t.Talks() && !inputTaken {
		return made(in, out), none
	}
	f, ok := in.(*os.File)
	if !ok {
		return nil, none
	}
	if _, isTerm := screenOf(out, func(string) string { return "" }); !isTerm {
		return nil, none // whoever asks must be seen
	}
	if !inputTaken {
		if !term.IsTerminal(int(f.Fd())) {
			return nil, none
		}
		return made(f, out), none
	}
	tty, err := openTTY()
	if err != nil {
		return nil, none
	}
	return made(tty, tty), func() { _ = tty.Close() }
}

// ask asks for one value.
func (a *asker) ask(text, def string) (string, error) {
	if a.rest {
		return def, nil
	}
	shown := ""
	if def != "" {
		shown = " [" + clean(def) + "]"
	}
	a.p.printf("  %s%s: ", clean(text), shown)
	if a.p.err != nil {
		return "", a.p.err
	}
	line, err := a.readLine()
	if err != nil {
		a.p.printf("\n")
		if errors.Is(err, io.EOF) {
			return "", errNoAnswer
		}
		if errors.Is(err, errCancelled) {
			return "", err
		}
		return "", fmt.Errorf("read the answer: %w", err)
	}
	switch line = strings.TrimSpace(line); line {
	case "":
		return def, nil
	case ".":
		a.rest = true
		return def, nil
	}
	return line, nil
}

// readLine reads what is typed. Reading a terminal cannot be ended: where ctx ends first,
// the reading stays behind until the process ends, which is soon.
func (a *asker) readLine() (string, error) {
	if a.ctx == nil {
		return a.in.ReadString('\n')
	}
	type typed struct {
		line string
		err  error
	}
	got := make(chan typed, 1)
	go func() {
		line, err := a.in.ReadString('\n')
		got <- typed{line, err}
	}()
	select {
	case t := <-got:
		return t.line, t.err
	case <-a.ctx.Done():
		return "", errCancelled
	}
}

// forget forgets what was typed before a question is shown: it was meant for something
// else. What comes through a pipe stays.
func (a *asker) forget() {
	if a.tty == nil || !dropTyped(a.tty) {
		return
	}
	_, _ = a.in.Discard(a.in.Buffered()) // no more than there is: never an error
}

// yes asks a question of yes or no, which neither a "." ever answers nor anything that was
// typed before.
func (a *asker) yes(text string, def bool) (bool, error) {
	choice := "y/N"
	if def {
		choice = "Y/n"
	}
	a.rest = false
	for {
		a.forget()
		s, err := a.ask(text, choice)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(s) {
		case strings.ToLower(choice), ".":
			a.rest = false
			return def, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		a.p.printf("    please answer y or n\n")
	}
}

// topics in the order in which they are asked.
var topics = []struct{ topic, title string }{
	{"run", "Where to run it"}, {"store", "Where to store its data"}, {"route", "How to route it"}, {"", "More"},
}

// askQuestions asks the questions of a plan, and gives the answers with what was said.
func (a *asker) askQuestions(questions []backup.Question, ans backup.Answers) (backup.Answers, error) {
	asked := map[string]bool{}
	for _, t := range topics {
		titled := false
		for _, q := range questions {
			if asked[q.Key] || t.topic != "" && q.Topic != t.topic {
				continue
			}
			asked[q.Key] = true
			if !titled && !a.rest {
				a.p.printf("\n%s\n", t.title)
				titled = true
			}
			for {
				def := cmp.Or(q.Default, "none")
				s, err := a.ask(q.Text, def)
				if err != nil {
					return ans, err
				}
				if s == def {
					break
				}
				next, err := setAnswer(ans, q.Key, s)
				if err == nil {
					ans = next
					break
				}
				a.p.printf("    %s\n", clean(err.Error()))
			}
		}
	}
	return ans, nil
}

// explain says how questions are answered, if there are any.
func (a *asker) explain(questions int) {
	if questions > 0 {
		a.p.printf("\nEnter keeps what is in [brackets], a dot (.) keeps all that follows.\n")
	}
}

// setAnswer puts the answer to a question where its key says: "name",
// "volumes.db.name", "routes.web.host". Names may hold dots themselves. What the flag
// would take is taken too: "path:/srv/db" for a volume.
func setAnswer(a backup.Answers, key, value string) (backup.Answers, error) {
	group, rest, _ := strings.Cut(key, ".")
	switch group {
	case "platform":
		a.Platform = platformName(value)
		return a, nil
	case "name":
		a.Name = value
		return a, nil
	case "project_dir":
		a.ProjectDir = value
		return a, nil
	case "on_conflict":
		a.OnConflict = value
		return a, checkAnswers(a)
	case "verify":
		a.Verify = value
		return a, checkAnswers(a)
	}
	name, field := rest, ""
	if i := strings.LastIndexByte(rest, '.'); i >= 0 {
		name, field = rest[:i], rest[i+1:]
	}
	var err error
	switch {
	case rest == "":
		return a, fmt.Errorf("there is no answer %q", key)
	case group == "volumes":
		if field != "name" && field != "path" && field != "driver" {
			name = rest
		}
		a.Volumes, err = addAnswer(a.Volumes, name, value, volumeByHand)
	case group == "networks":
		if field != "name" && field != "subnet" {
			name = rest
		} else if field == "subnet" && value != "auto" && !strings.HasPrefix(value, "subnet:") {
			value = "subnet:" + value
		}
		a.Networks, err = addAnswer(a.Networks, name, value, parseNetworkAnswer)
	case group == "ports": // no field: the key is the port itself
		a.Ports, err = addAnswer(a.Ports, rest, value, parsePortAnswer)
	case group == "containers":
		a.Containers, err = addAnswer(a.Containers, rest, value, parseNewName)
	case group == "routes":
		return setRoute(a, rest, name, field, value)
	default:
		return a, fmt.Errorf("there is no answer %q", key)
	}
	return a, err
}

// setRoute answers one field of a route and keeps the others.
func setRoute(a backup.Answers, rest, name, field, value string) (backup.Answers, error) {
	switch field {
	case "host":
	case "path", "tls", "port":
		value = field + "=" + value
	default:
		name = rest
	}
	v, err := parseRouteAnswer(value)
	if err != nil {
		return a, err
	}
	old := a.Routes[name]
	if !v.None {
		for _, f := range []struct{ to, from *string }{
			{&v.Host, &old.Host}, {&v.Path, &old.Path}, {&v.TLS, &old.TLS}, {&v.Port, &old.Port},
		} {
			if *f.to == "" {
				*f.to = *f.from
			}
		}
	}
	a.Routes = maps.Clone(a.Routes)
	if a.Routes == nil {
		a.Routes = map[string]backup.RouteAnswer{}
	}
	a.Routes[name] = v
	return a, nil
}

// volumeByHand lets a plain name or path be typed.
func volumeByHand(s string) (backup.VolumeAnswer, error) {
	if strings.HasPrefix(s, "/") {
		s = "path:" + s
	} else if kind, _, ok := strings.Cut(s, ":"); !ok && kind != "existing" && kind != "empty" {
		s = "name:" + s
	}
	return parseVolumeAnswer(s)
}

// askRisks asks for each kind of risk that is not accepted yet. Enter does not accept.
func (a *asker) askRisks(risks []backup.Risk, ans backup.Answers) (backup.Answers, error) {
	var kinds []string
	for _, r := range risks {
		if !r.Allowed && !slices.Contains(kinds, r.Kind) {
			kinds = append(kinds, r.Kind)
		}
	}
	for _, kind := range kinds {
		ok, err := a.yes(fmt.Sprintf("This app asks for %q, see above. Allow it?", kind), false)
		if err != nil {
			return ans, err
		}
		if !ok {
			return ans, fmt.Errorf("nothing was changed: the app asks for %q; --allow %s accepts it", kind, kind)
		}
		ans.Allow = append(slices.Clone(ans.Allow), kind)
	}
	return ans, nil
}

// askConflicts lets each conflict be settled by one of its choices. After one that may
// settle others too, the rest waits for the next plan.
func (a *asker) askConflicts(conflicts []backup.Conflict, ans backup.Answers) (backup.Answers, error) {
	for _, c := range conflicts {
		if c.Resolved {
			continue
		}
		a.p.printf("\n%s %s\n", a.p.paint(yellow, "!"), clean(c.Text))
		if len(c.Choices) == 0 {
			return ans, fmt.Errorf("nothing was changed: %s", hinted(c.Text, c.Hint))
		}
		for i, choice := range c.Choices {
			a.p.printf("    %d) %s\n", i+1, clean(choice))
		}
		a.p.printf("    q) change nothing, and end here\n")
		for {
			a.rest = false
			s, err := a.ask("Your choice", "q")
			if err != nil {
				return ans, err
			}
			if s == "q" {
				return ans, fmt.Errorf("nothing was changed: %s", hinted(c.Text, c.Hint))
			}
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > len(c.Choices) {
				a.p.printf("    please give a number from 1 to %d, or q\n", len(c.Choices))
				continue
			}
			next, err := a.choose(c.Choices[n-1], ans)
			if err == nil && (next.OnConflict != ans.OnConflict || next.Name != ans.Name) {
				return next, nil
			}
			if err == nil {
				ans = next
				break
			}
			if errors.Is(err, errNoAnswer) {
				return ans, err
			}
			a.p.printf("    %s\n", clean(err.Error()))
		}
	}
	return ans, nil
}

// placeholders are words in a choice that stand for a value.
var placeholders = map[string]string{
	"NEW": "New name", "PORT": "Port", "HOST": "Host name", "PATH": "Path", "NAME": "Name",
	"SUBNET": "Subnet", "FOLDER": "Folder", "DIR": "Folder", "IP": "IP address",
}

// choose takes a choice, which is written as flags, as if it had been given so.
func (a *asker) choose(choice string, ans backup.Answers) (backup.Answers, error) {
	flags := strings.TrimSpace(choice)
	// a choice may say in words what it does, behind the flags
	flags, _, _ = strings.Cut(flags, "  ")
	words := strings.Fields(flags)
	for i, w := range words {
		for _, sep := range []string{"=", ":"} {
			if j := strings.LastIndex(w, sep); j >= 0 {
				if ask, ok := placeholders[w[j+1:]]; ok {
					v, err := a.must(ask)
					if err != nil {
						return ans, err
					}
					words[i] = w[:j+1] + v
					w = words[i]
				}
			}
		}
		if ask, ok := placeholders[w]; ok {
			v, err := a.must(ask)
			if err != nil {
				return ans, err
			}
			words[i] = v
		}
	}
	var f answerFlags
	fs := pflag.NewFlagSet("choice", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.add(fs)
	if err := fs.Parse(words); err != nil || len(fs.Args()) > 0 {
		return ans, fmt.Errorf("this cannot be chosen here: end with q, and start again with %s", flags)
	}
	return f.answers(ans)
}

// must asks for a value that has no default.
func (a *asker) must(text string) (string, error) {
	for {
		a.rest = false
		s, err := a.ask(text, "")
		if err != nil || s != "" {
			return s, err
		}
	}
}
