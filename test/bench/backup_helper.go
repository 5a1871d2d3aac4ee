package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// comparison is what alternating runs of our way and a peer's came to.
type comparison struct {
	ours, theirs []time.Duration
	ratios       []float64 // their time by ours
	cpu          []float64 // their processor time by ours
	rss          int64     // the most that ours held
}

func (c *comparison) add(ours, theirs measured) {
	c.ours, c.theirs = append(c.ours, ours.took), append(c.theirs, theirs.took)
	c.ratios = append(c.ratios, theirs.took.Seconds()/ours.took.Seconds())
	c.cpu = append(c.cpu, theirs.cpu.Seconds()/ours.cpu.Seconds())
	c.rss = max(c.rss, ours.rss)
}

func (c *comparison) cells(bytes int64) []any {
	return []any{
		rate(bytes, middle(c.theirs)), rate(bytes, middle(c.ours)), fmt.Sprintf("%.2f ×", middle(c.ratios)),
		slices.Min(c.ratios), slices.Max(c.ratios), fmt.Sprintf("%.2f ×", middle(c.cpu)), kib(c.rss),
	}
}

// packing measures how fast the helper reads a volume into transit, with its hashes
// and its index of files, beside what a user would type.
func packing(b *bench) (table, error) {
	t := table{
		head: []string{"volume", "beside", "that one", "helper", "median of the ratios", "lowest", "highest", "of processor time", "peak memory", "size by that one's"},
		note: fmt.Sprintf("`dentropy helper read` of a folder (in the page cache where nothing else is said) into files, both ways until the data is on the disk (sync); %d alternating rounds. ", rounds) +
			"The helper also hashes every file, every segment and the whole tree, and writes an index of files.",
	}
	sets, err := b.datasets()
	if err != nil {
		return t, err
	}
	for _, s := range append(sets, variants(sets)...) {
		var c comparison
		var ratio float64
		for range rounds {
			theirs, ours, err := b.pack(s)
			if err != nil {
				return t, fmt.Errorf("%s: %w", s.title, err)
			}
			c.add(ours.measured, theirs.measured)
			ratio = float64(ours.size) / float64(theirs.size)
		}
		t.add(append(append([]any{s.title, s.peer}, c.cells(s.bytes)...), ratio)...)
	}
	return t, nil
}

// variants are the same volumes against other peers, or from the disk.
func variants(sets []dataset) []dataset {
	small, media := sets[1], sets[2]
	faithful := small
	faithful.write, faithful.peer = packAll, "tar with xattrs and ACLs, zstd -1 -T0"
	small.title, small.cold = small.title+", not in the page cache", true
	media.title, media.cold = media.title+", not in the page cache", true
	return []dataset{faithful, small, media}
}

// packed is a run with the size of what it wrote.
type packed struct {
	measured
	size int64
}

func (b *bench) pack(s dataset) (theirs, ours packed, err error) {
	file := filepath.Join(b.dir, "theirs")
	if err := errors.Join(os.RemoveAll(file), b.rest(s)); err != nil {
		return theirs, ours, err
	}
	if theirs.measured, err = timed(shell(s.write, s.dir, file), file); err != nil {
		return theirs, ours, err
	}
	if theirs.size, err = size(file); err != nil {
		return theirs, ours, err
	}
	transit, err := b.empty("transit")
	if err != nil {
		return theirs, ours, err
	}
	cmd, err := b.helperRead(s.dir, transit)
	if err := errors.Join(err, b.rest(s)); err != nil {
		return theirs, ours, err
	}
	if ours.measured, err = timed(cmd, ""); err != nil {
		return theirs, ours, err
	}
	ours.size, err = size(transit)
	return theirs, ours, err
}

// The ways to restore: what `tar` does, what the helper does by default (it writes, and reads
// again what it has written), and what it does where only the stream is checked.
const (
	wayTar = iota
	wayFull
	wayStream
	ways
)

// unpacking is the other way.
func unpacking(b *bench) (table, error) {
	t := table{
		head: []string{"volume", "step", "zstd -d, tar x", "helper", "median of the ratios", "lowest", "highest", "of processor time", "peak memory"},
		note: fmt.Sprintf("Packed by the helper, through a pipe into an empty folder, beside `zstd -d | tar x` of what `tar | zstd -1` packed, all until the data is on the disk (sync); %d rounds in changing order. ", restores) +
			"A restore writes (`helper write`, which checks the frames' checksums), then reads again what is there and compares it with the manifest (`helper hash`): tar has no such step. " +
			"With `--verify stream` the hashes are those of what was written, made on the way, and nothing is read again. A file's SHA-256 is one stream: no faster than one processor, whatever else is done.",
	}
	sets, err := b.datasets()
	if err != nil {
		return t, err
	}
	for _, s := range sets {
		s.write = pack
		if _, _, err := b.pack(s); err != nil {
			return t, fmt.Errorf("%s: %w", s.title, err)
		}
		var written, checked, stream comparison
		// Who comes first changes: what was removed just before costs the file system time.
		for n := range restores {
			var took [ways]measured
			var again measured
			for i := range ways {
				way := (n + i) % ways
				if took[way], err = b.unpack(way); err == nil && way == wayFull {
					again, err = b.readAgain()
				}
				if err != nil {
					return t, fmt.Errorf("%s: %w", s.title, err)
				}
			}
			written.add(took[wayFull], took[wayTar])
			checked.add(took[wayFull].then(again), took[wayTar])
			stream.add(took[wayStream], took[wayTar])
		}
		t.add(append([]any{s.title, "written"}, written.cells(s.bytes)...)...)
		t.add(append([]any{"", "and read again"}, checked.cells(s.bytes)...)...)
		t.add(append([]any{"", "`--verify stream`"}, stream.cells(s.bytes)...)...)
	}
	return t, nil
}

// unpack fills an empty folder.
func (b *bench) unpack(way int) (measured, error) {
	target, err := b.empty("target")
	if err != nil {
		return measured{}, err
	}
	if way == wayTar {
		return timed(shell(unpack, target, filepath.Join(b.dir, "theirs")), target)
	}
	cmd, wait, err := b.helperWrite(filepath.Join(b.dir, "transit"), target, way == wayFull)
	if err != nil {
		return measured{}, err
	}
	defer wait()
	return timed(cmd, target)
}

// readAgain hashes what was written.
func (b *bench) readAgain() (measured, error) {
	cmd, err := b.helper("hash", map[string]any{"path": filepath.Join(b.dir, "target")})
	if err != nil {
		return measured{}, err
	}
	return timed(cmd, "")
}

// then is one run after the other.
func (m measured) then(next measured) measured {
	return measured{took: m.took + next.took, cpu: m.cpu + next.cpu, rss: max(m.rss, next.rss)}
}

// rest lets the disk come to rest, and forgets what is in the page cache where that is
// what is measured.
func (b *bench) rest(s dataset) error {
	err := settle()
	if err == nil && s.cold {
		err = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	}
	return err
}

// empty makes a folder that is empty and at rest.
func (b *bench) empty(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), settle())
}

// helperRead reads a folder into a transit folder.
func (b *bench) helperRead(dir, transit string) (*exec.Cmd, error) {
	return b.helper("read", map[string]any{"volumes": []any{map[string]any{"id": "v", "path": dir}}, "transit": transit, "quiesced": true})
}

// helperWrite fills a folder from a transit folder; without sums where it is read again.
func (b *bench) helperWrite(transit, dir string, again bool) (*exec.Cmd, func(), error) {
	segments, err := filepath.Glob(filepath.Join(transit, "v.tar.zst.*"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(segments)
	cmd, err := b.helper("write", map[string]any{"path": dir, "strict": true, "no_sums": again})
	if err != nil {
		return nil, nil, err
	}
	// A pipe, as in its container.
	source := exec.Command("cat", segments...)
	out, err := source.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdin = out
	if err := source.Start(); err != nil {
		return nil, nil, err
	}
	return cmd, func() { _ = source.Wait() }, nil // it ends with cmd, which says what was wrong
}

func (b *bench) helper(task string, input any) (*exec.Cmd, error) {
	text, err := json.Marshal(input)
	return exec.Command(b.binary, "helper", task, string(text)), err
}
