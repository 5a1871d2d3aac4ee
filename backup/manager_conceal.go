package backup

import "strings"

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
	text := err.Error()
	if shown := hide(text); shown != text {
		return &concealedError{text: shown, err: err}
	}
	return err
}

type concealedError struct {
	text string
	err  error
}

func (e *concealedError) Error() string { return e.text }

func (e *concealedError) Unwrap() error { return e.err }
