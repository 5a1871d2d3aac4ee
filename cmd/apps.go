package dentropycmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dentropy/dentropycloud/backup"
)

func setUpApps(cmd *cobra.Command) {
	cmd.Use = "apps [<app>] [flags]"
	cmd.Short = "Lists the applications that can be backed up"
	cmd.Long = `
Lists applications: each compose project, each group of containers with the same label
dentropy.app, and each other container. With the name of one, shows all that a backup of
it would hold, and what not, each with the reason: containers and how each comes to rest,
volumes, images, networks, routes. Nothing is stopped or changed.

Asks a running dentropy, and the Docker engine itself where none runs: then what a backup
or restore that was interrupted has left stopped is started again first.

EXIT STATUS

	0  all engines answered
	1  one did not, or there is no such app: the reason is on standard error
`
	workerFlags(cmd.Flags())
	captureFlags(cmd)
	cmd.Flags().String("engine", "", "`name` of the app's engine, where two have one of that name")
	cmd.Flags().Bool("json", false, "print the answer as JSON")
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError(c, errors.New("give one app, or none for a list"))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts, err := captureOptions(cmd)
		if err != nil {
			return err
		}
		w, err := findWorker(cmd, "")
		if err != nil {
			return err
		}
		defer func() { _ = w.close() }() // has no jobs
		asJSON, _ := cmd.Flags().GetBool("json")
		if len(args) == 1 {
			return oneApp(cmd, w, args[0], opts, asJSON)
		}
		return listApps(cmd, w, asJSON)
	}
}

// captureFlags are what belongs to an app beside what is obvious.
func captureFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.String("image", "", "`when` images go along: auto (those that cannot be pulled again, default), always or never")
	fs.String("layer", "", "`when` what containers wrote outside volumes goes along: auto (where it matters, default), always or never")
	fs.StringArray("include", nil, "`volume` (its name, or the path on the host) to take along although it would be left out; may be repeated")
	fs.StringArray("exclude", nil, "`volume` to leave out; may be repeated")
}

func captureOptions(cmd *cobra.Command) (backup.CaptureOptions, error) {
	var o backup.CaptureOptions
	var err error
	modes := []string{"auto", "always", "never"}
	if o.Images, err = oneOf(cmd, "image", modes); err != nil {
		return o, err
	}
	if o.Layers, err = oneOf(cmd, "layer", modes); err != nil {
		return o, err
	}
	o.IncludePaths, _ = cmd.Flags().GetStringArray("include")
	o.ExcludePaths, _ = cmd.Flags().GetStringArray("exclude")
	for _, p := range o.IncludePaths {
		if slices.Contains(o.ExcludePaths, p) {
			return o, fmt.Errorf("%q is both included and excluded: decide", p)
		}
	}
	return o, nil
}

// oneOf gives the value of a flag that knows only some words.
func oneOf(cmd *cobra.Command, name string, allowed []string) (string, error) {
	v, _ := cmd.Flags().GetString(name)
	if v != "" && !slices.Contains(allowed, v) {
		return "", fmt.Errorf("--%s %q: give %s", name, v, strings.Join(allowed, ", "))
	}
	return v, nil
}

func writeJSON(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return printJSON(w, raw)
}

func listApps(cmd *cobra.Command, w worker, asJSON bool) error {
	a, err := w.apps(cmd.Context())
	if err != nil {
		return err
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	runs, err := w.lastRuns(cmd.Context())
	if err != nil {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "dentropy: %s\n", clean(err.Error()))
	}
	if asJSON {
		if runs == nil {
			runs = []backup.LastRun{}
		}
		if err := writeJSON(p.w, map[string]any{"apps": a.Apps, "problems": a.Problems, "backups": runs}); err != nil {
			return err
		}
		return problemsOf(a)
	}
	showApps(p, a.Apps, runs)
	if p.err != nil {
		return p.err
	}
	return problemsOf(a)
}

func problemsOf(a appsAnswer) error {
	var errs []error
	for _, l := range a.Problems {
		errs = append(errs, errors.New(l.String()))
	}
	return errors.Join(errs...)
}

func showApps(p *printer, apps []backup.AppInfo, runs []backup.LastRun) {
	if len(apps) == 0 {
		p.printf("No applications: no container is there.\n")
		return
	}
	last := map[string]backup.LastRun{}
	for _, r := range runs {
		last[r.Platform+"\x00"+r.App] = r
	}
	var rows [][]string
	var colours []colour
	var notes []string
	for _, a := range apps {
		r := last[a.Platform+"\x00"+a.Name]
		ago := "never"
		if !r.LastSuccess.IsZero() {
			ago = p.ago(r.LastSuccess) + " ago, " + backup.FormatBytes(r.Size)
		}
		c := plain
		if r.LastError != "" {
			ago += " (the last one failed)"
			c = red
			notes = append(notes, fmt.Sprintf("%s: the last backup failed: %s", a.Name, r.LastError))
		}
		running := "-"
		if len(a.Containers) > 0 {
			running = fmt.Sprintf("%d/%d", a.Running, len(a.Containers))
		}
		rows = append(rows, []string{dash(a.Name), dash(a.Kind), dash(a.Platform), running, fmt.Sprint(len(a.Volumes)), ago})
		colours = append(colours, c)
	}
	p.table([]string{"APP", "KIND", "ON", "RUNNING", "VOLUMES", "LAST BACKUP"}, rows, colours)
	for i, n := range notes {
		if i == 0 {
			p.printf("\n")
		}
		p.printf("%s %s\n", p.paint(yellow, "!"), clean(n))
	}
}

func oneApp(cmd *cobra.Command, w worker, name string, opts backup.CaptureOptions, asJSON bool) error {
	engine, _ := cmd.Flags().GetString("engine")
	if engine != "" {
		engine = platformName(engine)
	}
	a, err := w.app(cmd.Context(), name, engine, opts)
	if err != nil {
		return err
	}
	p := newPrinter(cmd.OutOrStdout(), os.Getenv)
	if asJSON {
		return writeJSON(p.w, a)
	}
	showApp(p, a)
	return p.err
}

// showApp shows all that a backup would hold.
func showApp(p *printer, a *backup.App) {
	p.printf("%s (%s) on %s\n", dash(a.Name), dash(a.Kind), dash(a.Platform))
	if a.Project != nil && a.Project.Dir != "" {
		p.printf("  project in %s: %s\n", dash(a.Project.Dir), clean(strings.Join(slices.Concat(a.Project.ConfigFiles, a.Project.EnvFiles), ", ")))
	}
	if a.Self {
		p.printf("  %s this program runs in it: it is backed up while it runs, and never stopped\n", p.paint(yellow, "!"))
	}
	p.printf("\nContainers, in the order in which they start\n")
	for _, c := range a.Containers {
		state := string(c.State)
		if c.Health != "" {
			state += ", " + c.Health
		}
		p.printf("  %s (%s) from %s\n", dash(c.Name), dash(state), dash(c.Image))
		p.printf("      %s\n", clean(restLine(c)))
		for _, d := range c.DependsOn {
			p.printf("      after %s is %s\n", dash(d.Container), dash(d.Condition))
		}
		if c.Layer.Changes > 0 {
			what := "left out (--layer always takes it along)"
			if c.Layer.Include {
				what = "goes along"
			}
			p.printf("      %s outside its volumes, %s, %s: %s\n", count(c.Layer.Changes, "change"), backup.FormatBytes(c.Layer.Bytes), what, clean(strings.Join(c.Layer.Sample, ", ")))
		}
		for _, k := range slices.Sorted(maps.Keys(c.Routes)) {
			p.printf("      %s\n", p.paint(faint, clean(k+"="+c.Routes[k])))
		}
	}
	showAppVolumes(p, a.Volumes)
	showAppImages(p, a.Images)
	showAppNetworks(p, a.Networks)
	for i, w := range a.Warnings {
		if i == 0 {
			p.printf("\n")
		}
		p.printf("%s %s\n", p.paint(yellow, "!"), clean(w))
	}
}

func showAppVolumes(p *printer, volumes []backup.Volume) {
	if len(volumes) == 0 {
		return
	}
	p.printf("\nVolumes\n")
	for _, v := range volumesInOrder(volumes) {
		mark, colour := "✓", green
		switch v.Action {
		case backup.Reference:
			mark, colour = "→", yellow
		case backup.Skip:
			mark, colour = "–", faint
		}
		p.printf("  %s %s (%s, %s): %s\n", p.paint(colour, mark), dash(v.Name), dash(string(v.Kind)), dash(v.Class), clean(actionLine(v)))
		if len(v.UsedBy) > 0 {
			p.printf("      also used by %s\n", clean(strings.Join(v.UsedBy, ", ")))
		}
	}
}

func showAppImages(p *printer, images []backup.Image) {
	if len(images) == 0 {
		return
	}
	p.printf("\nImages\n")
	for _, i := range images {
		name := i.ID
		if len(i.Refs) > 0 {
			name = i.Refs[0]
		}
		what := "stays out"
		if i.Include {
			what = "goes along"
		}
		p.printf("  %s (%s, %s) %s", dash(name), backup.FormatBytes(i.Size), dash(i.Platform), what)
		if i.Reason != "" {
			p.printf(": %s", clean(i.Reason))
		}
		p.printf("\n")
	}
}

func showAppNetworks(p *printer, networks []backup.Network) {
	if len(networks) == 0 {
		return
	}
	p.printf("\nNetworks\n")
	for _, n := range networks {
		var words []string
		words = append(words, n.Driver)
		words = append(words, n.Subnets...)
		switch {
		case n.Predefined:
			words = append(words, "every engine has it")
		case n.External:
			words = append(words, "not its own: made where it is missing")
		}
		p.printf("  %s (%s)\n", dash(n.Name), clean(strings.Join(nonEmpty(words...), ", ")))
	}
}

// restLine says how a container comes to rest.
func restLine(c backup.Container) string {
	s := map[backup.Mode]string{
		backup.Stop: "is stopped while its data is read", backup.Pause: "is paused while its data is read",
		backup.Hot: "runs on while its data is read",
	}[c.Quiesce.Mode]
	if s == "" {
		s = "mode " + string(c.Quiesce.Mode)
	}
	switch {
	case c.State == backup.Paused:
		s = "is paused, and stays so"
	case c.State != backup.Running && c.State != backup.Restarting && c.Quiesce.Mode != backup.Hot:
		s = "does not run, and stays so"
	}
	if c.Quiesce.Why != "" {
		s += " (" + c.Quiesce.Why + ")"
	}
	if n := len(c.Quiesce.Pre); n > 0 {
		s += ", after " + count(n, "hook")
	}
	if n := len(c.Quiesce.Post); n > 0 {
		s += ", then " + count(n, "hook")
	}
	if c.Quiesce.NoRestart {
		s += ", and is not started again"
	}
	return s
}

func actionLine(v backup.Volume) string {
	s := map[backup.Action]string{
		backup.Include: "goes along", backup.Reference: "stays out, and must be there where the app is restored",
		backup.Skip: "stays out",
	}[v.Action]
	if s == "" {
		s = string(v.Action)
	}
	if v.Reason != "" {
		s += ": " + v.Reason
	}
	return s
}
