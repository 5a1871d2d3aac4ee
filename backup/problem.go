package backup

import (
	"errors"
	"strings"
)

// Problem is an error that says what to do about it.
type Problem struct {
	// Message says what is wrong, Hint what to do, Object what it is about. Hint and
	// Object may be empty.
	Message string
	Hint    string
	Object  string
	// Err is the error behind it, for errors.Is; it is not shown. May be nil.
	Err error
}

func (p *Problem) Error() string { return p.Message }

func (p *Problem) Unwrap() error { return p.Err }

// HintOf gives what to do about an error: the hint of the first error in its chain that
// has one, as a Problem or by a method Hint; "" where none has.
func HintOf(err error) string {
	var p *Problem
	if errors.As(err, &p) && p.Hint != "" {
		return p.Hint
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// ObjectOf gives what an error is about; "" where it does not say.
func ObjectOf(err error) string {
	var p *Problem
	if errors.As(err, &p) {
		return p.Object
	}
	return ""
}

// NotReadyError says that a restore's plan has conflicts or risks that the answers do
// not settle. Nothing was changed.
type NotReadyError struct{ Plan *Plan }

func (e *NotReadyError) Error() string {
	var open []string
	for _, c := range e.Plan.Conflicts {
		if !c.Resolved {
			open = append(open, c.Text)
		}
	}
	for _, r := range e.Plan.Risks {
		if !r.Allowed {
			open = append(open, r.Text)
		}
	}
	return "the restore is not possible like this: " + strings.Join(open, "; ")
}

// Hint says which flags settle it.
func (e *NotReadyError) Hint() string {
	var hints []string
	add := func(h string) {
		for _, have := range hints {
			if have == h {
				return
			}
		}
		hints = append(hints, h)
	}
	for _, c := range e.Plan.Conflicts {
		switch {
		case c.Resolved:
		case c.Hint != "":
			add(c.Hint)
		case len(c.Choices) > 0:
			add("use one of " + strings.Join(c.Choices, ", "))
		}
	}
	for _, r := range e.Plan.Risks {
		if !r.Allowed {
			add("accept it with --allow " + r.Kind)
		}
	}
	return strings.Join(hints, "; ")
}
