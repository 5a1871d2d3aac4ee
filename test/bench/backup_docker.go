package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// throughDocker measures whole backups and restores on a real engine, whose endpoint is
// in DOCKER_TEST_HOST (scripts/with-engine sets it).
func throughDocker(b *bench) (table, error) {
	t := table{
		head: []string{"volume", "tar of it", "app stopped", "data downtime", "data downtime beside tar", "backup", "restore", "peak memory of the helper", "of the program"},
		note: "An app of one container; medians of 3. tar reads the same volume on the host into one file on the same disk, and syncs it, as one does who stops an app and types tar. " +
			"Data downtime is from the last stop returned to the first start called, app stopped from the first stop called to the last start returned. " +
			"Backup is the whole verb, encrypted, without the image; restore is the whole verb, which also reads again what it wrote.",
	}
	endpoint := os.Getenv("DOCKER_TEST_HOST")
	if endpoint == "" || os.Getuid() != 0 { // volumes are read on the host, beside
		t.note = "Not measured: that needs root, and an engine (DOCKER_TEST_HOST)."
		return t, nil
	}
	sets, err := b.datasets()
	if err != nil {
		return t, err
	}
	d := &dockerBench{bench: b, endpoint: endpoint, data: filepath.Join(b.dir, "docker-data")}
	if err := d.makeImage(); err != nil {
		return t, err
	}
	for _, s := range sets {
		row, err := d.measure(s)
		if err != nil {
			return t, fmt.Errorf("%s: %w", s.title, err)
		}
		t.add(row...)
	}
	return t, nil
}

type dockerBench struct {
	*bench
	endpoint, data string
}

func (d *dockerBench) docker(args ...string) (string, error) {
	cmd := exec.Command("docker", append([]string{"-H", d.endpoint}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out)), err
}

const benchImage = "dentropy-bench:1"

// makeImage makes an image of the program itself, which has a site to show.
func (d *dockerBench) makeImage() error {
	text := `tar -C "$(dirname "$DIR")" -c "$(basename "$DIR")" | docker -H "$OUT" import --change "ENTRYPOINT [\"/$(basename "$DIR")\",\"demo-site\"]" - ` + benchImage
	out, err := shell(text, d.binary, d.endpoint).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make image: %w: %s", err, out)
	}
	return nil
}

func (d *dockerBench) measure(s dataset) (row []any, err error) {
	const name = "bench"
	if _, err := d.docker("volume", "create", name); err != nil {
		return nil, err
	}
	defer func() {
		_, rm := d.docker("rm", "-f", name)
		_, rmVolume := d.docker("volume", "rm", "-f", name)
		err = errors.Join(err, rm, rmVolume)
	}()
	mountpoint, err := d.docker("volume", "inspect", "-f", "{{.Mountpoint}}", name)
	if err != nil {
		return nil, err
	}
	if out, err := shell("cp -a $DIR/. $OUT/; sync", s.dir, mountpoint).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("fill the volume: %w: %s", err, out)
	}
	if _, err := d.docker("run", "-d", "--name", name, "-v", name+":/data", benchImage); err != nil {
		return nil, err
	}
	const times = 3
	var tars, stopped, downtimes, backups, restores []time.Duration
	var ratios []float64
	var helper, program int64
	for range times {
		file := filepath.Join(d.dir, "theirs")
		if err := errors.Join(os.RemoveAll(file), settle()); err != nil {
			return nil, err
		}
		tar, err := timed(shell("tar -C $DIR -cf $OUT .", mountpoint, file), file)
		if err != nil {
			return nil, err
		}
		r, err := d.round(name)
		if err != nil {
			return nil, err
		}
		tars, stopped, downtimes = append(tars, tar.took), append(stopped, r.downtime), append(downtimes, r.dataDowntime)
		backups, restores = append(backups, r.backup.took), append(restores, r.restore.took)
		ratios = append(ratios, r.dataDowntime.Seconds()/tar.took.Seconds())
		helper, program = max(helper, r.helper), max(program, r.backup.rss, r.restore.rss)
	}
	return []any{
		s.title, middle(tars), middle(stopped), middle(downtimes), fmt.Sprintf("%.2f ×", middle(ratios)),
		rate(s.bytes, middle(backups)), rate(s.bytes, middle(restores)), kib(helper), kib(program),
	}, nil
}

// roundTrip is one backup and its restore under another name.
type roundTrip struct {
	backup, restore        measured
	downtime, dataDowntime time.Duration
	helper                 int64
}

func (d *dockerBench) round(name string) (r roundTrip, err error) {
	out, err := d.empty("archives")
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { r.helper = peakOfHelpers(ctx) })
	defer func() {
		cancel()
		watch.Wait()
	}()
	if r.backup, err = timed(d.verb("backup", name, "--yes", "--json", "--image", "never", "-o", out), ""); err != nil {
		return r, err
	}
	var answer struct {
		Backups []struct {
			Archive string `json:"archive"`
			Quiesce struct {
				Downtime     time.Duration `json:"downtime"`
				DataDowntime time.Duration `json:"data_downtime"`
			} `json:"quiesce"`
		} `json:"backups"`
	}
	if err := json.Unmarshal(r.backup.out, &answer); err != nil || len(answer.Backups) != 1 {
		return r, fmt.Errorf("read %s: %w", r.backup.out, err)
	}
	result := answer.Backups[0]
	r.downtime, r.dataDowntime = result.Quiesce.Downtime, result.Quiesce.DataDowntime
	if err := settle(); err != nil {
		return r, err
	}
	if r.restore, err = timed(d.verb("restore", filepath.Join(out, result.Archive), "--yes", "--as", name+"2", "--volume", name+"=name:"+name+"2"), ""); err != nil {
		return r, err
	}
	if _, err := timed(d.verb("restore", "--undo", "--yes"), ""); err != nil {
		return r, err
	}
	_, err = d.docker("volume", "rm", name+"2") // an undo keeps data
	return r, err
}

// verb is a verb of the program with nobody else running: it does the work itself.
func (d *dockerBench) verb(args ...string) *exec.Cmd {
	cmd := exec.Command(d.binary, append(args, "--data-dir", d.data, "--docker", d.endpoint)...)
	cmd.Env = append(os.Environ(), "DENTROPY_HELPER="+d.binary)
	return cmd
}

// peakOfHelpers gives the most memory that a helper has held, until ctx is over.
func peakOfHelpers(ctx context.Context) (peak int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return peak
		case <-tick.C:
		}
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return peak
		}
		for _, f := range files {
			line, err := os.ReadFile(f)
			if err != nil || !bytes.HasPrefix(line, []byte("/dentropy\x00")) || !bytes.Contains(line, []byte("\x00helper\x00")) {
				continue // ended, or somebody else's
			}
			peak = max(peak, highWater(filepath.Join(filepath.Dir(f), "status")))
		}
	}
}

// highWater is the VmHWM of a process.
func highWater(status string) int64 {
	text, err := os.ReadFile(status)
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
