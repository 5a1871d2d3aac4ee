package docker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

const (
	// healthLogMost bounds what is said of a health check's output, in characters.
	healthLogMost = 300
	// healthLogTime bounds the wait for it: the engine may be what is wrong.
	healthLogTime = 10 * time.Second
	// shortSecret is the length below which a secret is a word that means something else
	// in what a program says.
	shortSecret = 6
)

// whyUndo is a changeover that brings back what was there before: it may have been
// unhealthy then, and gets the time that it needs.
const whyUndo = "undo"

// withHealthLog adds to why a new container did not become healthy what its health check
// said last.
func (r *restore) withHealthLog(ctx context.Context, err error) error {
	var p *backup.Problem
	if !errors.As(err, &p) || ctx.Err() != nil {
		return err
	}
	i := slices.IndexFunc(r.c.rec.New, func(n newOne) bool { return n.Name == p.Object })
	if i < 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthLogTime)
	defer cancel()
	st, serr := r.p.state(ctx, r.c.rec.New[i].ID)
	if serr != nil || st == nil || st.Health == nil || st.Health.Status == container.Healthy {
		return err
	}
	q := *p
	if said := healthLog(r.app, st.Health.Log); said != "" {
		q.Message += "; its health check says: " + said
	}
	if st.Health.Status == container.Unhealthy {
		q.Hint = "see why its health check fails; one that only needs more time wants a longer start_period; " + p.Hint
	}
	return &q
}

// healthLog is what a health check said the last time that it failed, as one short line
// and without the app's secrets.
func healthLog(app *backup.App, log []*container.HealthcheckResult) string {
	for _, l := range slices.Backward(log) {
		if l == nil || l.ExitCode == 0 {
			continue
		}
		text := strings.Join(strings.Fields(hideSecrets(app, l.Output)), " ")
		return plainText(text, healthLogMost)
	}
	return ""
}

// hideSecrets hides the secrets of an app in the text of a program.
func hideSecrets(app *backup.App, text string) string {
	_, secrets := backup.Redact(app)
	var values []string
	for _, s := range secrets {
		if len(s) >= shortSecret {
			values = append(values, s)
		}
	}
	// The longest first: one may be part of another.
	slices.SortFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	var pairs []string
	for _, s := range slices.Compact(values) {
		pairs = append(pairs, s, "…")
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
