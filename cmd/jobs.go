package dentropycmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

// jobView is backup.JobView with a result that can be read.
type jobView struct {
	backup.JobView
	Result json.RawMessage `json:"result,omitempty"`
}

// err is what a job that is over came to.
func (v *jobView) err() error {
	switch v.State {
	case "done":
		return nil
	case "cancelled":
		if strings.Contains(v.Error, backup.ErrLeftStopped.Error()) {
			return fmt.Errorf("%w: %s", errCancelled, hinted(v.Error, v.Hint))
		}
		return errCancelled
	}
	if v.Error == "" {
		return fmt.Errorf("job %s ended as %q", v.ID, v.State)
	}
	return errors.New(hinted(v.Error, v.Hint))
}

// errCancelled is what a job came to that was stopped by Ctrl-C or `jobs --cancel`.
var errCancelled = errors.New("stopped on request")

func hinted(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + ": " + hint
}

// followJob shows a job of a running dentropy until it is over. A stream that
// breaks is taken up again; a job that is not known yet may be registered in a moment.
func followJob(ctx context.Context, c *client, id string, show func(backup.JobView)) (jobView, error) {
	const (
		firstWait = 50 * time.Millisecond
		lastWait  = 2 * time.Second
		// missing bounds how long a job may be unknown: its request is on its way.
		missing = 30 * time.Second
	)
	var last jobView
	wait, since := firstWait, time.Now()
	for {
		none := ""
		err := stream(ctx, c, "/dentropy/jobs/"+url.PathEscape(id)+"/events", &none, func(data []byte) error {
			var v jobView
			if err := json.Unmarshal(data, &v); err != nil {
				return fmt.Errorf("the progress of job %s cannot be read: %w", id, err)
			}
			last, wait, since = v, firstWait, time.Now()
			if show != nil {
				show(v.JobView)
			}
			return nil
		})
		if last.State != "" && last.State != "running" {
			return last, nil
		}
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if e, ok := errors.AsType[*apiError](err); ok && e.Status != http.StatusNotFound {
			return last, err
		} else if ok && last.State != "" { // one that was started since does not know it
			return last, &lostJobError{err}
		}
		if time.Since(since) > missing {
			if err == nil {
				err = fmt.Errorf("job %s says nothing any more", id)
			}
			if last.State != "" {
				err = &lostJobError{err}
			}
			return last, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return last, ctx.Err()
		case <-timer.C:
		}
		wait = min(2*wait, lastWait)
	}
}

// lostJobError says that a running dentropy ended while it was at work.
type lostJobError struct{ err error }

func (e *lostJobError) Error() string {
	return fmt.Sprintf("the dentropy that did the work has ended in the middle of it: what it left stopped is brought back by a guard container, and at the latest by the next `%s up`, backup or restore", verbPrefix())
}

func (e *lostJobError) Unwrap() error { return e.err }

func setUpJobs(cmd *cobra.Command) {
	cmd.Use = "jobs [<id>] [--cancel] [flags]"
	cmd.Short = "Lists backups and restores that run, or ran last"
	cmd.Long = `
Lists the backups and restores of a running dentropy, newest first. With an id, shows
that one and follows it until it is over; with --cancel it is stopped, and the verb
waits until its app runs again.

A backup or restore that a verb does in its own process is not in the list: it is
seen where it was started.

EXIT STATUS

	0  the list was printed; the job is done, or was stopped as asked
	1  the job failed, or nobody could be asked: the reason is on standard error
`
	addressFlags(cmd.Flags())
	cmd.Flags().Bool("cancel", false, "stop the job; its app is brought back first")
	cmd.Flags().Bool("json", false, "print the answer as JSON")
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError(c, errors.New("give one job, or none for all"))
		}
		if cancel, _ := c.Flags().GetBool("cancel"); cancel && len(args) == 0 {
			return usageError(c, errors.New("--cancel needs the id of a job"))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd.Flags(), os.Getenv)
		if err != nil {
			return err
		}
		asJSON, _ := cmd.Flags().GetBool("json")
		if len(args) == 0 {
			return listJobs(cmd, c, asJSON)
		}
		return oneJob(cmd, c, args[0], asJSON)
	}
}

func listJobs(cmd *cobra.Command, c *client, asJSON bool) error {
	raw, err := c.get(cmd.Context(), "/dentropy/jobs")
	if err != nil {
		return err
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if asJSON {
		return printJSON(p.w, raw)
	}
	var a struct {
		Jobs []jobView `json:"jobs"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return fmt.Errorf("the answer cannot be read (is the running one another version? --json shows it as it is): %w", err)
	}
	showJobs(p, a.Jobs)
	return p.err
}

func showJobs(p *printer, jobs []jobView) {
	if len(jobs) == 0 {
		p.printf("No jobs since dentropy was started.\n")
		return
	}
	var rows [][]string
	var colours []colour
	for _, j := range jobs {
		what := j.Error
		c := plain
		switch j.State {
		case "running":
			what = phaseWord(j.Progress.Phase)
			if j.Progress.Total > 0 {
				what += fmt.Sprintf(" %d %%", 100*j.Progress.Done/j.Progress.Total)
			}
			c = yellow
		case "failed":
			c = red
		case "cancelled":
			if what == j.State { // it says nothing more
				what = ""
			}
		}
		length := p.now.Sub(j.Started)
		if !j.Ended.IsZero() {
			length = j.Ended.Sub(j.Started)
		}
		const most = 60
		rows = append(rows, []string{dash(j.ID), dash(j.Kind), dash(j.App), p.ago(j.Started), took(length), dash(j.State), dash(cut(clean(what), most))})
		colours = append(colours, c)
	}
	p.table([]string{"JOB", "KIND", "APP", "BEGAN", "TOOK", "STATE", ""}, rows, colours)
}

func oneJob(cmd *cobra.Command, c *client, id string, asJSON bool) error {
	ctx := cmd.Context()
	raw, err := c.get(ctx, "/dentropy/jobs/"+url.PathEscape(id))
	if err != nil {
		return err
	}
	cancel, _ := cmd.Flags().GetBool("cancel")
	if cancel {
		resp, err := c.do(ctx, http.MethodDelete, "/dentropy/jobs/"+url.PathEscape(id))
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
	}
	var v jobView
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("the answer cannot be read (is the running one another version?): %w", err)
	}
	if v.State == "running" && (cancel || !asJSON) {
		if v, err = followJob(ctx, c, id, newProgress(cmd.ErrOrStderr(), os.Getenv).show); err != nil {
			return err
		}
		if raw, err = json.Marshal(v); err != nil {
			return err
		}
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if asJSON {
		if err := printJSON(p.w, raw); err != nil {
			return err
		}
	} else {
		showJobs(p, []jobView{v})
	}
	err = v.err()
	if v.State == "running" || cancel && errors.Is(err, errCancelled) {
		err = nil
	}
	return cmp.Or(err, p.err)
}
