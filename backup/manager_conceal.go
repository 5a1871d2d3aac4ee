package backup

import (
	"errors"
	"strings"
)

// concealer hides the secrets of an app in texts for people: what a hook or an engine
// says when something fails may quote them. It is nil where there are none.
func concealer(app *App) func(string) string {
	r := newRedactor(app)
	mapApp(app, r.visitor())
	var pairs []string
	for _, secret := range r.repeats() { // longest first
		pairs = append(pairs, secret, "…")
	}
	if len(pairs) == 0 {
		return nil
	}
	return strings.NewReplacer(pairs...).Replace
}

// conceal keeps the secrets of an app out of all that is said from now on.
func (op *operation) conceal(app *App) {
	hide := concealer(app)
	op.job.mu.Lock()
	defer op.job.mu.Unlock()
	op.job.hide = hide
}

// concealed is an error without the secrets of the app in its text.
func (op *operation) concealed(err error) error {
	op.job.mu.Lock()
	hide := op.job.hide
	op.job.mu.Unlock()
	if err == nil || hide == nil {
		return err
	}
	for _, text := range []string{err.Error(), HintOf(err), ObjectOf(err)} {
		if hide(text) != text {
			return &concealedError{err: err, hide: hide}
		}
	}
	return err
}

// concealedError is an error whose texts are shown without secrets, those of a Problem
// within it too.
type concealedError struct {
	err  error
	hide func(string) string
}

func (e *concealedError) Error() string { return e.hide(e.err.Error()) }

// Hint is that of the error within.
func (e *concealedError) Hint() string { return e.hide(HintOf(e.err)) }

// As gives a copy of a Problem within.
func (e *concealedError) As(target any) bool {
	into, ok := target.(**Problem)
	var p *Problem
	if !ok || !errors.As(e.err, &p) {
		return false
	}
	*into = &Problem{Message: e.hide(p.Message), Hint: e.hide(p.Hint), Object: e.hide(p.Object), Err: e.err}
	return true
}

func (e *concealedError) Unwrap() error { return e.err }
