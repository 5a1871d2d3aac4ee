package dentropycmd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/dentropy/dentropycloud/backup"
	filestore "github.com/dentropy/dentropycloud/backup/local"
)

// remote hands the work to a running dentropy.
type remote struct {
	c    *client
	talk io.Writer
}

func (r *remote) close() error { return nil }

// ask reads a JSON answer.
func (r *remote) ask(ctx context.Context, method, uri string, body, answer any) error {
	var rd io.Reader
	contentType := ""
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		rd, contentType = bytes.NewReader(raw), "application/json"
	}
	resp, err := r.c.send(ctx, method, uri, contentType, rd)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeAnswer(resp.Body, answer)
}

func decodeAnswer(body io.Reader, answer any) error {
	raw, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("the answer cannot be read (is the running one another version?): %w", err)
	}
	return nil
}

func (r *remote) apps(ctx context.Context) (a appsAnswer, err error) {
	return a, r.ask(ctx, http.MethodGet, "/dentropy/apps", nil, &a)
}

func (r *remote) app(ctx context.Context, name, platform string, o backup.CaptureOptions) (*backup.App, error) {
	q := url.Values{}
	for k, v := range map[string]string{
		"platform": platform, "images": o.Images, "layers": o.Layers,
	} {
		if v != "" {
			q.Set(k, v)
		}
	}
	q["include"], q["exclude"] = o.IncludePaths, o.ExcludePaths // a path may hold a comma
	uri := "/dentropy/apps/" + url.PathEscape(name)
	if len(q) > 0 {
		uri += "?" + q.Encode()
	}
	a := new(backup.App)
	return a, r.ask(ctx, http.MethodGet, uri, nil, a)
}

func (r *remote) lastRuns(ctx context.Context) ([]backup.LastRun, error) {
	var a struct {
		Backups []backup.LastRun `json:"backups"`
	}
	err := r.ask(ctx, http.MethodGet, "/dentropy/backups", nil, &a)
	return a.Backups, err
}

func (r *remote) key(ctx context.Context) (a keyAnswer, err error) {
	return a, r.ask(ctx, http.MethodGet, "/dentropy/backup/key", nil, &a)
}

func (r *remote) makeKey(ctx context.Context) (a keyAnswer, err error) {
	return a, r.ask(ctx, http.MethodPost, "/dentropy/backup/key", nil, &a)
}

// backupBody is a request with what its JSON leaves out.
type backupBody struct {
	backup.BackupRequest
	Passphrase string `json:"passphrase,omitempty"`
}

func (r *remote) estimate(ctx context.Context, req backup.BackupRequest) (*backup.BackupResult, error) {
	req.DryRun = true
	var a struct {
		App      *backup.App      `json:"app"`
		Estimate *backup.Estimate `json:"estimate"`
		Warnings []string         `json:"warnings"`
	}
	if err := r.ask(ctx, http.MethodPost, "/dentropy/backups", backupBody{req, req.Passphrase}, &a); err != nil {
		return nil, err
	}
	if a.Estimate == nil || a.App == nil {
		return nil, errors.New("the running dentropy did not say what the backup will take: is it another version?")
	}
	return &backup.BackupResult{App: a.App, Estimate: a.Estimate, Warnings: a.Warnings}, nil
}

func (r *remote) backup(ctx context.Context, req backup.BackupRequest, to output, confirm confirmer, show func(backup.JobView)) (*backup.BackupResult, error) {
	if confirm != nil || to.folder != "" {
		est, err := r.estimate(ctx, req)
		if err != nil {
			return nil, err
		}
		if err := checkFolder(ctx, to.folder, est.Estimate); err != nil {
			return nil, err
		}
		if confirm != nil {
			if err := confirm(est.App, est.Estimate); err != nil {
				return nil, err
			}
		}
	}
	id := newJobID()
	body := backupBody{req, req.Passphrase}
	result := new(backup.BackupResult)
	var err error
	switch {
	case to.w != nil:
		err = r.stream(ctx, id, body, show, result, func(resp *http.Response) error {
			return copyChecked(to.w, resp)
		})
	case to.folder != "":
		name := ""
		err = r.stream(ctx, id, body, show, result, func(resp *http.Response) (err error) {
			name, err = saveChecked(ctx, to.folder, resp)
			return err
		})
		result.Archive, result.Store = name, to.folder
	default:
		err = r.job(ctx, id, show, result, func(ctx context.Context) error {
			var a struct{ Job string }
			return r.ask(ctx, http.MethodPost, "/dentropy/backups?job="+id, body, &a)
		})
	}
	return result, err
}

// checkFolder proves, before anything stops, that a folder of this machine takes an
// archive. What compression will save is not known.
func checkFolder(ctx context.Context, folder string, est *backup.Estimate) error {
	if folder == "" {
		return nil
	}
	store, err := filestore.New(folder)
	if err != nil {
		return err
	}
	return store.Check(ctx, est.Bytes+est.ImageBytes)
}

// job starts a job, which start does with one request that answers at once, and
// follows it. The end of ctx stops the job; it is followed to its end all the same,
// since its app is brought back first.
func (r *remote) job(ctx context.Context, id string, show func(backup.JobView), result any, start func(context.Context) error) error {
	lasting := context.WithoutCancel(ctx)
	if err := start(lasting); err != nil {
		return err
	}
	defer r.cancelWith(ctx, id)()
	v, err := followJob(lasting, r.c, id, show)
	if err != nil {
		return err
	}
	if err := v.err(); err != nil {
		return err
	}
	return readResult(v, result)
}

// cancelWith asks for the end of the job when ctx ends, until the function that it
// gives is called.
func (r *remote) cancelWith(ctx context.Context, id string) (stop func()) {
	lasting := context.WithoutCancel(ctx)
	unregister := context.AfterFunc(ctx, func() {
		resp, err := r.c.do(lasting, http.MethodDelete, "/dentropy/jobs/"+url.PathEscape(id))
		if err != nil {
			_, _ = fmt.Fprintf(r.talk, "dentropy: the job could not be stopped: %s\n", clean(err.Error()))
			return
		}
		_ = resp.Body.Close()
	})
	return func() { unregister() }
}

func readResult(v jobView, result any) error {
	if result == nil {
		return nil
	}
	if len(v.Result) == 0 {
		return errors.New("the running dentropy says that it is done, but not what came of it: is it another version?")
	}
	if err := json.Unmarshal(v.Result, result); err != nil {
		return fmt.Errorf("what the running dentropy says of the job cannot be read (is it another version?): %w", err)
	}
	return nil
}

// long does work that lasts as long as its job, one request, and follows the job
// beside it.
func (r *remote) long(ctx context.Context, id string, show func(backup.JobView), work func(context.Context) error) (jobView, error) {
	lasting := context.WithoutCancel(ctx)
	defer r.cancelWith(ctx, id)()
	following, stop := context.WithCancel(lasting)
	defer stop()
	type ended struct {
		v   jobView
		err error
	}
	over := make(chan ended, 1)
	go func() {
		v, err := followJob(following, r.c, id, show)
		over <- ended{v, err}
	}()
	err := work(lasting)
	if e, ok := errors.AsType[*apiError](err); ok && ctx.Err() == nil {
		stop() // what it says is better than what its job says, if there is one
		<-over
		return jobView{}, e
	}
	if err != nil {
		// The job knows more, and until it is over its app may not run.
		if resp, err := r.c.do(lasting, http.MethodDelete, "/dentropy/jobs/"+url.PathEscape(id)); err == nil {
			_ = resp.Body.Close()
		} else {
			stop() // there is no such job, or nobody to ask
		}
	}
	o := <-over
	if o.err == nil {
		if jobErr := o.v.err(); jobErr != nil && (err == nil || o.v.State == "failed") {
			return o.v, jobErr
		}
	}
	if ctx.Err() != nil && err != nil {
		return o.v, errCancelled
	}
	return o.v, cmp.Or(err, o.err)
}

// stream makes a backup whose archive comes as the answer.
func (r *remote) stream(ctx context.Context, id string, body backupBody, show func(backup.JobView), result any, take func(*http.Response) error) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	v, err := r.long(ctx, id, show, func(ctx context.Context) error {
		resp, err := r.c.send(ctx, http.MethodPost, "/dentropy/backups?to=-&job="+id, "application/json", bytes.NewReader(raw))
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		return take(resp)
	})
	if err != nil {
		return err
	}
	return readResult(v, result)
}

// copyChecked copies an archive and holds it against the hash and size that follow it.
func copyChecked(w io.Writer, resp *http.Response) error {
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(w, h), onlyReader{resp.Body}, make([]byte, copyBuffer))
	if err != nil {
		return fmt.Errorf("the archive is not whole: %w", err)
	}
	if want := resp.Trailer.Get("Dentropy-Sha256"); want != hex.EncodeToString(h.Sum(nil)) {
		return errors.New("the archive is not whole: its hash is not the one that dentropy reckoned")
	}
	if want := resp.Trailer.Get("Dentropy-Size"); want != strconv.FormatInt(n, 10) {
		return errors.New("the archive is not whole: its size is not the one that dentropy counted")
	}
	return nil
}

const copyBuffer = 1 << 20

// onlyReader hides what else a reader can do from io.CopyBuffer.
type onlyReader struct{ io.Reader }

// saveChecked writes an archive into a folder of this machine. It appears there when it
// is whole.
func saveChecked(ctx context.Context, folder string, resp *http.Response) (name string, err error) {
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
	if err == nil {
		_, err = backup.ParseArchiveName(params["filename"])
	}
	if err != nil {
		return "", fmt.Errorf("the running dentropy does not name the archive (is it another version?): %w", err)
	}
	name = params["filename"]
	store, err := filestore.New(folder)
	if err != nil {
		return name, err
	}
	up, err := store.Create(ctx, name)
	if err != nil {
		return name, err
	}
	if err := copyChecked(up, resp); err != nil {
		return name, errors.Join(err, up.Abort())
	}
	return name, up.Commit()
}

func (r *remote) archives(ctx context.Context, store string) (map[string][]backup.Entity, []string, error) {
	uri := "/dentropy/archives"
	if store != "" {
		uri += "?store=" + url.QueryEscape(store)
	}
	var a struct {
		Archives map[string][]backup.Entity `json:"archives"`
		Problems []problemLine              `json:"problems"`
	}
	err := r.ask(ctx, http.MethodGet, uri, nil, &a)
	var problems []string
	for _, p := range a.Problems {
		problems = append(problems, p.String())
	}
	return a.Archives, problems, err
}

func (r *remote) open(ctx context.Context, store, name string) (io.ReadCloser, error) {
	return openRemote(ctx, r.c, archiveURI(store, name)+"/download")
}

func archiveURI(store, name string) string {
	return "/dentropy/archives/" + url.PathEscape(store) + "/" + url.PathEscape(name)
}
