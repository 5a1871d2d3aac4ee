package dentropycmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"

	"github.com/dentropy/dentropycloud/backup"
)

func (r *remote) plan(ctx context.Context, in *archiveInput, a backup.Answers) (*backup.Plan, error) {
	var answer struct {
		Plan *backup.Plan `json:"plan"`
	}
	err := r.sendArchive(ctx, in, a, "", &answer)
	if e, ok := errors.AsType[*apiError](err); ok && len(e.Plan) > 0 && json.Unmarshal(e.Plan, &answer.Plan) == nil {
		err = nil // not ready: what it says shows that
	}
	if err == nil && answer.Plan == nil {
		err = errors.New("the running dentropy gave no plan: is it another version?")
	}
	return answer.Plan, err
}

// sendArchive asks for a plan, or with a job's id for the restore itself.
func (r *remote) sendArchive(ctx context.Context, in *archiveInput, a backup.Answers, job string, answer any) error {
	q := url.Values{}
	if job == "" {
		q.Set("dry_run", "1")
	} else {
		q.Set("job", job)
	}
	if in.inStore() {
		return r.ask(ctx, http.MethodPost, "/dentropy/restores?"+q.Encode(), map[string]any{
			"store": in.store, "archive": in.name, "answers": a, "dry_run": job == "",
		}, answer)
	}
	var body io.Reader
	if job == "" {
		head, err := in.plainHead()
		if err != nil {
			return err
		}
		body = bytes.NewReader(head)
	} else {
		var stop func()
		body, stop = in.plain(ctx)
		defer stop()
	}
	form, kind, err := restoreForm(a, body)
	if err != nil {
		return err
	}
	resp, err := r.c.send(ctx, http.MethodPost, "/dentropy/restores?"+q.Encode(), kind, form)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeAnswer(resp.Body, answer)
}

// restoreForm is a form of answers and an archive. Answers may hold passwords, and URLs are
// written to logs.
func restoreForm(a backup.Answers, archive io.Reader) (form io.Reader, kind string, err error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, "", fmt.Errorf("encode answers: %w", err)
	}
	var head, tail bytes.Buffer
	w := multipart.NewWriter(&head)
	for _, name := range []string{"answers", "archive"} {
		if _, err = w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"`}}); err != nil {
			return nil, "", err // not before a buffer can fail
		}
		if name == "answers" {
			head.Write(raw)
		}
	}
	fmt.Fprintf(&tail, "\r\n--%s--\r\n", w.Boundary())
	return io.MultiReader(&head, archive, &tail), w.FormDataContentType(), nil
}

func (r *remote) restore(ctx context.Context, in *archiveInput, a backup.Answers, show func(backup.JobView)) (*backup.RestoreResult, error) {
	id := newJobID()
	result := new(backup.RestoreResult)
	if in.inStore() {
		return result, r.job(ctx, id, show, result, func(ctx context.Context) error {
			return r.sendArchive(ctx, in, a, id, new(struct{ Job string }))
		})
	}
	var answer struct {
		Result *backup.RestoreResult `json:"result"`
	}
	_, err := r.long(ctx, id, show, func(ctx context.Context) error {
		return r.sendArchive(ctx, in, a, id, &answer)
	})
	if in.err != nil {
		return nil, in.err // what the other side saw is an end that came too early
	}
	if err == nil && answer.Result == nil {
		err = errors.New("the running dentropy says that it is done, but not what came of it: is it another version?")
	}
	return answer.Result, err
}

func (r *remote) undos(ctx context.Context) ([]backup.Undo, error) {
	var a struct {
		Undos []backup.Undo `json:"undos"`
	}
	err := r.ask(ctx, http.MethodGet, "/dentropy/restores", nil, &a)
	return a.Undos, err
}

func (r *remote) undo(ctx context.Context, id, app string, show func(backup.JobView)) error {
	job := newJobID()
	return r.job(ctx, job, show, nil, func(ctx context.Context) error {
		return r.ask(ctx, http.MethodPost, "/dentropy/restores/undo?job="+job, map[string]string{"id": id, "app": app}, new(struct{ Job string }))
	})
}
