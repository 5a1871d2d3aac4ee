package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

const restoreHelp = `
Makes an application run again from its archive. First it shows what is inside, and a
review of the settings that reach beyond the app; on a terminal it then asks where to run
it, where to store each volume, how to route each host, and what to do where a name or a
port is taken. Enter keeps what was. The plan is shown, and nothing is changed before you
agree.

	$ dentropy restore shop-20261124T101500Z-1f2e3d4c.dentropy.tar.age
	$ dentropy restore local:shop-20261124T101500Z-1f2e3d4c.dentropy.tar.age
	$ ssh nas cat shop.dentropy.tar.age | dentropy restore - --yes
	$ dentropy restore FILE --as shop-test --route web=test.example.com --port web:443=auto
	$ dentropy restore --list                         those that can be taken back
	$ dentropy restore --undo                         the newest; or --undo ID, --undo --app shop

Each answer is also a flag, and a key of the --answers file. Data is written into new
volumes and checked before anything that runs is touched; if the restored app does not
become healthy, or its site does not answer, all is put back. 'dentropy restore --undo'
does the same later.

ANSWERS

	--volume V=name:NEW | path:/srv/x | nfs:SERVER:/export | driver:D,opt=v
	--volume V=existing[:NAME] | empty       its data is not written; none is
	--network N=NEW | subnet:10.9.0.0/24 | auto | existing
	--port CONTAINER:PORT=[IP:]PORT | auto | none
	--route CONTAINER=HOST[/PATH][,tls=…][,port=…] | none
	--on-conflict replace                    what is there is kept for --undo
	--on-conflict rename                     a free name is taken

--yes asks nothing and keeps what was. It accepts no risk and replaces nothing: those have
flags of their own, --allow and --on-conflict.

The work is done by a running dentropy, and by this process where none runs: a machine
with Docker and this program is enough.

EXIT STATUS

	0  the app runs again (with --no-start: all is there); with --dry-run: it could be
	1  it does not, and everything is as it was: the reason is on standard error
`

type restoreFlags struct {
	answerFlags
	file, write         string
	undo, list          bool
	app                 string
	dryRun, yes, asJSON bool
}

func setUpRestore(cmd *cobra.Command) {
	f := new(restoreFlags)
	cmd.Use = "restore <file>|-|<store>:<name> [flags]"
	cmd.Short = "Makes an application run again from its archive"
	cmd.Long = restoreHelp
	workerFlags(cmd.Flags())
	keyFlags(cmd.Flags())
	f.add(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&f.file, "answers", "", "YAML `file` with answers; flags win over it")
	fs.StringVar(&f.write, "write-answers", "", "write the answers given into this `file`, for --answers another time")
	fs.BoolVar(&f.undo, "undo", false, "take a restore back: the newest, or the one with this id")
	fs.StringVar(&f.app, "app", "", "with --undo: the newest restore of this app; with --list: only those of this app")
	fs.BoolVar(&f.list, "list", false, "list the restores that can be taken back")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the plan, and change nothing")
	fs.BoolVar(&f.yes, "yes", false, "ask nothing: keep what was, accept no risk, replace nothing")
	fs.BoolVar(&f.asJSON, "json", false, "print plan or result as JSON")
	cmd.Args = func(c *cobra.Command, args []string) error { return f.check(c, args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.list:
			return listUndos(cmd, f)
		case f.undo:
			return runUndo(cmd, f, strings.Join(args, ""))
		}
		return runRestore(cmd, f, args[0])
	}
}

// restoreOnly are the flags that say how to restore.
var restoreOnly = []string{
	"answers", "write-answers", "as", "engine", "project-dir", "volume", "network", "port", "route", "rename", "on-conflict", "allow",
	"no-start", "no-probe", "verify", "identity", "passphrase", "passphrase-file", "dry-run",
}

func (f *restoreFlags) check(c *cobra.Command, args []string) error {
	given := func(names ...string) string {
		for _, n := range names {
			if c.Flags().Changed(n) {
				return "--" + n
			}
		}
		return ""
	}
	var err error
	switch {
	case f.undo && f.list:
		err = errors.New("--undo and --list exclude each other")
	case (f.undo || f.list) && given(restoreOnly...) != "":
		err = fmt.Errorf("%s is for a restore, not for --undo or --list", given(restoreOnly...))
	case f.list && len(args) > 0:
		err = fmt.Errorf("%q is one word too many", args[0])
	case f.undo && len(args) > 1:
		err = errors.New("--undo takes one id, or none for the newest restore")
	case f.undo && len(args) == 1 && f.app != "":
		err = errors.New("an id and --app exclude each other: leave one of them out")
	case f.app != "" && !f.undo && !f.list:
		err = errors.New("--app goes with --undo or --list; the new name of an app is given with --as")
	case !f.undo && !f.list && len(args) != 1:
		err = errors.New("name one archive: a file, - for standard input, or STORE:NAME")
	}
	if err != nil {
		return usageError(c, err)
	}
	return nil
}

// firstAnswers are those of the file and the flags.
func (f *restoreFlags) firstAnswers() (backup.Answers, error) {
	var a backup.Answers
	if f.file != "" {
		file, err := os.Open(f.file)
		if err != nil {
			return a, fmt.Errorf("--answers: %w", err)
		}
		defer func() { _ = file.Close() }()
		if a, err = readAnswers(file); err != nil {
			return a, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	return f.answers(a)
}

func runRestore(cmd *cobra.Command, f *restoreFlags, arg string) (err error) {
	answers, err := f.firstAnswers()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	w, err := findWorker(cmd, "")
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // its job has been waited for
	folder, err := keyFolder(cmd, w)
	if err != nil {
		return err
	}
	keys, err := openKeys(cmd, os.Getenv, folder)
	if err != nil {
		return err
	}
	in, err := openInput(ctx, cmd, w, arg, keys)
	if err != nil {
		return err
	}
	defer func() { _ = in.close() }()
	if in.manifest == nil || in.manifest.App == nil {
		return errors.New("the archive does not say what is in it: `" + verbPrefix() + " archive verify` tells what can be salvaged")
	}
	r := &restoring{cmd: cmd, f: f, w: w, in: in, keys: keys, answers: answers, talk: newPrinter(cmd.ErrOrStderr(), os.Getenv)}
	return r.run(ctx)
}

// restoring is one restore, from what is inside to the result.
type restoring struct {
	cmd     *cobra.Command
	f       *restoreFlags
	w       worker
	in      *archiveInput
	keys    archiveKeys
	answers backup.Answers
	talk    *printer
	who     *asker
}

func (r *restoring) run(ctx context.Context) error {
	if !r.f.yes && !r.f.dryRun && !r.f.asJSON {
		who, done := newAsker(r.cmd, r.in.label == "-")
		defer done()
		r.who = who
	}
	showInside(r.talk, r.label(), r.in.manifest)
	plan, err := r.plan(ctx)
	if err != nil {
		return explainArchive(err, r.keys)
	}
	showRisks(r.talk, plan.Risks)
	questions := plan.Questions
	if r.who != nil {
		plan, err = r.ask(ctx, plan)
	}
	if werr := r.writeAnswers(questions); werr != nil {
		return errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	if r.f.dryRun {
		return r.showDryRun(plan)
	}
	showPlan(r.talk, plan)
	switch {
	case !plan.Ready():
		return notReady(plan)
	case r.who != nil:
		ok, err := r.who.yes("Restore now?", true)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not restored, as you said: nothing was changed")
		}
	case !r.f.yes:
		return errors.New("nothing was changed: there is nobody to ask here; --yes does what the plan says")
	}
	return r.apply(ctx)
}

// plan makes the plan for the answers so far. On a terminal it says so: it takes seconds.
func (r *restoring) plan(ctx context.Context) (*backup.Plan, error) {
	bar := newProgress(r.cmd.ErrOrStderr(), os.Getenv)
	if bar.screen != nil {
		bar.show(backup.JobView{State: "running", Progress: backup.Progress{Phase: "plan"}})
		defer bar.vanish()
	}
	return r.w.plan(ctx, r.in, r.answers)
}

func (r *restoring) label() string {
	if r.in.label == "-" {
		return "Archive on standard input"
	}
	return r.in.label
}

// ask asks what can be answered, then what must be, until the plan is ready.
func (r *restoring) ask(ctx context.Context, plan *backup.Plan) (*backup.Plan, error) {
	var err error
	if r.answers, err = r.who.askRisks(plan.Risks, r.answers); err != nil {
		return plan, err
	}
	if r.f.file == "" {
		if plan, err = r.askQuestions(ctx, plan); err != nil {
			return plan, err
		}
	}
	const rounds = 20 // each settles a conflict, or a person gives up before
	for range rounds {
		if plan, err = r.plan(ctx); err != nil {
			return plan, err
		}
		if plan.Ready() {
			return plan, nil
		}
		before := r.answers
		if r.answers, err = r.who.askRisks(plan.Risks, r.answers); err != nil {
			return plan, err
		}
		if r.answers, err = r.who.askConflicts(plan.Conflicts, r.answers); err != nil {
			return plan, err
		}
		if reflect.DeepEqual(before, r.answers) {
			break
		}
	}
	return plan, nil
}

// askQuestions asks where to run it first: the defaults of the other questions follow
// from that.
func (r *restoring) askQuestions(ctx context.Context, plan *backup.Plan) (*backup.Plan, error) {
	isRun := func(q backup.Question) bool { return q.Topic == "run" }
	before := r.answers
	var err error
	r.who.explain(len(plan.Questions))
	run := slices.DeleteFunc(slices.Clone(plan.Questions), func(q backup.Question) bool { return !isRun(q) })
	if r.answers, err = r.who.askQuestions(run, r.answers); err != nil {
		return plan, err
	}
	if !reflect.DeepEqual(before, r.answers) {
		if plan, err = r.plan(ctx); err != nil {
			return plan, err
		}
	}
	r.answers, err = r.who.askQuestions(slices.DeleteFunc(slices.Clone(plan.Questions), isRun), r.answers)
	r.who.rest = false
	return plan, err
}

// notReady says how much must be answered: the plan, which was shown, says what.
func notReady(plan *backup.Plan) error {
	n := len(deniedKinds(plan))
	for _, c := range plan.Conflicts {
		if !c.Resolved {
			n++
		}
	}
	return fmt.Errorf("nothing was changed: %s of the plan must be settled first, see ✗", count(n, "point"))
}

func (r *restoring) showDryRun(plan *backup.Plan) error {
	p := newPrinter(r.cmd.OutOrStdout(), os.Getenv)
	if r.f.asJSON {
		plan.Detail = nil // the platform's own, which may hold settings
		if err := writeJSON(p.w, map[string]any{"plan": plan, "ready": plan.Ready()}); err != nil {
			return err
		}
	} else {
		showPlan(p, plan)
	}
	switch {
	case plan.Ready():
		return p.err
	case r.f.asJSON:
		err := &backup.NotReadyError{Plan: plan}
		return fmt.Errorf("nothing was changed: %s", hinted(err.Error(), err.Hint()))
	}
	return notReady(plan)
}

func (r *restoring) apply(ctx context.Context) error {
	bar := newProgress(r.cmd.ErrOrStderr(), os.Getenv)
	ctx, done := patience(ctx, r.cmd.ErrOrStderr(), bar.waiting)
	defer done()
	res, err := r.w.restore(ctx, r.in, r.answers, bar.show)
	bar.end(err == nil)
	if err != nil {
		return explainArchive(err, r.keys)
	}
	p := newPrinter(r.cmd.OutOrStdout(), os.Getenv)
	if r.f.asJSON {
		if res.Plan != nil {
			res.Plan.Detail = nil
		}
		return writeJSON(p.w, res)
	}
	p.printf("%s %s on %s\n", dash(res.App), r.outcome(), dash(res.Platform))
	if res.Plan != nil {
		note := ""
		if _, here := r.w.(*local); here {
			note = ", once `" + verbPrefix() + " up` runs"
		}
		for _, h := range res.Plan.Hosts {
			p.printf("  %-10s https://%s%s\n", "site", clean(h), note)
		}
	}
	if res.Undo != "" {
		p.printf("  %-10s %s restore --undo %s\n", "undo", verbPrefix(), dash(res.Undo))
	}
	showNoUndo(p, res)
	return p.err
}

// outcome says what became of the app.
func (r *restoring) outcome() string {
	ran := func(c backup.Container) bool {
		return c.State == "" || c.State == backup.Running || c.State == backup.Restarting
	}
	switch containers := r.in.manifest.App.Containers; {
	case r.in.manifest.App.Self:
		return "has its earlier state again"
	case r.answers.NoStart:
		return "is there, and was not started"
	case len(containers) > 0 && !slices.ContainsFunc(containers, ran):
		return "is there; it did not run when it was backed up, and was not started"
	}
	return "runs again"
}

// writeAnswers writes the answers so far. They may hold passwords of volume drivers.
func (r *restoring) writeAnswers(questions []backup.Question) error {
	if r.f.write == "" {
		return nil
	}
	const mode = 0o600
	f, err := os.OpenFile(r.f.write, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("--write-answers: %s is there already: name a new file", r.f.write)
	}
	if err != nil {
		return fmt.Errorf("--write-answers: %w", err)
	}
	err = writeAnswers(f, r.answers, questions)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("--write-answers: %w", err)
	}
	_, _ = fmt.Fprintf(r.cmd.ErrOrStderr(), "dentropy: the answers are in %s\n", r.f.write)
	return nil
}
