package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	bigSize    = 1 << 30
	smallFiles = 100_000
	rounds     = 5 // alternating runs of each way
	restores   = 6 // the same, each of the three first in a third of them

	// The peers: shell commands that pack $DIR into $OUT, and $OUT into the empty $DIR.
	pack    = "tar -C $DIR -cf - . | zstd -q -1 -T0 -f -o $OUT"
	packAll = "tar --format=pax --xattrs --acls -C $DIR -cf - . | zstd -q -1 -T0 -f -o $OUT"
	unpack  = "zstd -q -d -c $OUT | tar -C $DIR -xf -"
)

// dataset is a folder that is backed up and restored.
type dataset struct {
	title string
	dir   string
	bytes int64
	// write is the peer that packs it, and peer its name.
	write, peer string
	// cold says that nothing of it is in the page cache.
	cold bool
}

// datasets makes the three volumes: a big file that compresses, many small files, and
// a big file that does not compress.
func (b *bench) datasets() ([]dataset, error) {
	if b.sets != nil {
		return b.sets, nil
	}
	corpus, err := readCorpus()
	if err != nil {
		return nil, err
	}
	sets := []dataset{
		{title: "big file, compressible", dir: "big", bytes: bigSize, write: pack, peer: "tar, zstd -1 -T0"},
		{title: fmt.Sprintf("%d small files", smallFiles), dir: "small", write: pack, peer: "tar, zstd -1 -T0"},
		{title: "media, incompressible", dir: "media", bytes: bigSize, write: "cat $DIR/film > $OUT", peer: "cat"},
	}
	for i := range sets {
		sets[i].dir = filepath.Join(b.dir, "data", sets[i].dir)
		if err := os.MkdirAll(sets[i].dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := writeRepeated(filepath.Join(sets[0].dir, "dump"), corpus, bigSize); err != nil {
		return nil, err
	}
	if sets[1].bytes, err = writeSmall(sets[1].dir, corpus); err != nil {
		return nil, err
	}
	film, err := os.Create(filepath.Join(sets[2].dir, "film"))
	if err != nil {
		return nil, err
	}
	_, err = io.CopyN(film, rand.Reader, bigSize)
	b.sets = sets
	return sets, errors.Join(err, film.Close())
}

// readCorpus gives what Go's own tree holds: source text and programs, some 200 MB that
// every machine with Go has, and that compress as people's data does.
func readCorpus() ([]byte, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	var all []byte
	err = filepath.WalkDir(strings.TrimSpace(string(out)), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(all) > 300<<20 {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, text...)
		return err
	})
	if err == nil && len(all) < 50<<20 {
		err = errors.New("GOROOT holds too little")
	}
	return all, err
}

// writeRepeated repeats data until there is enough: what comes again is too far away for
// any of the compressors to find it.
func writeRepeated(path string, data []byte, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for size > 0 && err == nil {
		var n int
		n, err = f.Write(data[:min(int64(len(data)), size)])
		size -= int64(n)
	}
	return errors.Join(err, f.Close())
}

// writeSmall cuts data into files of up to 8 KB, 500 in each folder.
func writeSmall(dir string, data []byte) (total int64, err error) {
	at := 0
	for n := range smallFiles {
		folder := filepath.Join(dir, fmt.Sprint(n/500))
		if n%500 == 0 {
			if err := os.Mkdir(folder, 0o755); err != nil {
				return 0, err
			}
		}
		size := 100 + n*7919%8000
		if at+size > len(data) {
			at = 0
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%d", n)), data[at:at+size], 0o644); err != nil {
			return 0, err
		}
		at += size
		total += int64(size)
	}
	return total, nil
}

// measured is what one run of a command took.
type measured struct {
	took time.Duration
	cpu  time.Duration // with that of its children
	rss  int64         // the most memory that it held
	out  []byte
}

// timed runs a command until its data is on the disk: ours syncs what it writes, so
// its peer is followed by a sync of the same files.
func timed(cmd *exec.Cmd, syncs string) (measured, error) {
	var r measured
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { r.rss = peak(ctx, fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)) })
	err := cmd.Wait()
	cancel()
	watch.Wait()
	if err != nil {
		return r, fmt.Errorf("%q: %w: %s", cmd.Args, err, errs.String())
	}
	if syncs != "" {
		if err := syncFile(syncs); err != nil {
			return r, err
		}
	}
	r.took, r.out = time.Since(begin), out.Bytes()
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, nil
}

// peak gives the most memory that a process has held, until ctx is over. (The kernel's
// rusage would count what this program held when it started that one.)
func peak(ctx context.Context, status string) (most int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
			most = max(most, highWater(status))
		}
	}
}

// syncFile brings a file, or the file system of a folder, to the disk.
func syncFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	args := []string{path}
	if info.IsDir() {
		args = []string{"-f", path}
	}
	return exec.Command("sync", args...).Run()
}

// shell is a peer's command.
func shell(text, dir, out string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", "set -euo pipefail; "+text)
	cmd.Env = append(os.Environ(), "DIR="+dir, "OUT="+out)
	return cmd
}

// settle lets the disk come to rest between runs.
func settle() error { return exec.Command("sync").Run() }

func middle[T int64 | float64 | time.Duration](values []T) T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

func rate(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", float64(bytes)/1e6/took.Seconds())
}

// size of a file, or of all files below a folder.
func size(path string) (int64, error) {
	var total int64
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
