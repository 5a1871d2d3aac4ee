package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestConcealedHint(t *testing.T) {
	op := &operation{job: &Job{hide: strings.NewReplacer("hunter2", "…").Replace}}
	for _, err := range []error{
		&Problem{Message: "no hunter2", Hint: "use hunter2", Object: "hunter2", Err: fs.ErrExist},
		&Problem{Message: "no", Hint: "use hunter2", Err: fs.ErrExist},
		fmt.Errorf("wrapped: %w", &Problem{Message: "no", Object: "hunter2", Hint: "wait", Err: fs.ErrExist}),
		errors.Join(fs.ErrExist, &NotReadyError{Plan: &Plan{Conflicts: []Conflict{{Text: "x", Hint: "hunter2 is taken"}}}}),
	} {
		got := op.concealed(err)
		var p *Problem
		texts := []string{got.Error(), HintOf(got), ObjectOf(got)}
		if errors.As(got, &p) {
			texts = append(texts, p.Error(), p.Hint, p.Object)
		}
		if all := strings.Join(texts, " "); strings.Contains(all, "hunter2") || HintOf(got) == "" {
			t.Errorf("concealed(%v) shows %q, want a hint without the secret", err, all)
		}
		if !errors.Is(got, fs.ErrExist) {
			t.Errorf("concealed(%v) = %v, is no fs.ErrExist any more", err, got)
		}
	}
	if plain := errors.New("plain"); !errors.Is(op.concealed(plain), plain) || op.concealed(nil) != nil {
		t.Error("an error without a secret is another one")
	}
}
