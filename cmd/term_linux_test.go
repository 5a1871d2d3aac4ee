package dentropycmd

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dentropy/dentropycloud/backup"
)

// openPTY gives the two ends of a terminal: what is written to typing is typed on tty.
func openPTY(t *testing.T) (typing, tty *os.File) {
	t.Helper()
	typing, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals: %v", err)
	}
	t.Cleanup(func() { typing.Close() })
	n, err := unix.IoctlGetInt(int(typing.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(typing.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return typing, tty
}

// arrived waits until n bytes can be read.
func arrived(t *testing.T, f *os.File, n int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if got >= n {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%d bytes have arrived, want %d", got, n)
		}
	}
}

// answering is a screen: once it shows a question, that is answered.
type answering struct {
	bytes.Buffer
	question string
	answer   func()
}

func (a *answering) Write(p []byte) (int, error) {
	n, err := a.Buffer.Write(p)
	if a.answer != nil && strings.Contains(a.String(), a.question) {
		a.answer()
		a.answer = nil
	}
	return n, err
}

// What was typed before the question about a risk was shown does not answer it, be it on
// its way or read already with the answer to another question.
func TestTypedAheadAcceptsNoRisk(t *testing.T) {
	risks := []backup.Risk{{Kind: "privileged", Text: "all rights"}}
	for _, said := range []struct {
		text    string
		allowed bool
	}{{"n\n", false}, {"y\n", true}} {
		typing, tty := openPTY(t)
		screen := &answering{question: "Allow it?"}
		screen.answer = func() { _, _ = typing.WriteString(said.text) }
		a := &asker{in: bufio.NewReader(tty), out: screen, p: newPrinter(screen, os.Getenv), tty: tty}
		ahead := "first\n"
		if !said.allowed {
			ahead += "y\nyes\ny\n"
		} else {
			ahead += "n\nno\nn\n"
		}
		if _, err := typing.WriteString(ahead); err != nil {
			t.Fatal(err)
		}
		arrived(t, tty, len(ahead))
		if got, err := a.ask("A name", "x"); err != nil || got != "first" {
			t.Fatalf("the first question is answered with %q, %v", got, err)
		}
		ans, err := a.askRisks(risks, backup.Answers{})
		if got := err == nil && len(ans.Allow) == 1; got != said.allowed {
			t.Errorf("answered with %q: allowed %v, %v, want %v", said.text, ans.Allow, err, said.allowed)
		}
	}
}

// What comes through a pipe was meant as it comes.
func TestPipeAnswersRisks(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("y\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var screen bytes.Buffer
	a := &asker{in: bufio.NewReader(r), out: &screen, p: newPrinter(&screen, os.Getenv), tty: r}
	ans, err := a.askRisks([]backup.Risk{{Kind: "privileged"}}, backup.Answers{})
	if err != nil || len(ans.Allow) != 1 {
		t.Errorf("askRisks = %v, %v, want the answer of the pipe", ans.Allow, err)
	}
}
