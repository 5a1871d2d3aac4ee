package backup

import (
	"fmt"
	"time"

	"github.com/dentropy/dentropycloud/backup/frame"
)

// check refuses words that mean nothing: a backup that does not do what was asked for is
// worse than none.
func (r *BackupRequest) check() error {
	for _, word := range []struct {
		what, is, hint string
		known          []string
	}{
		{"mode", string(r.Freeze.Mode), "use stop, pause or hot", []string{string(Stop), string(Pause), string(Hot)}},
		{"images", r.Capture.Images, "use auto, always or never", []string{"auto", "always", "never"}},
		{"layers", r.Capture.Layers, "use auto, always or never", []string{"auto", "always", "never"}},
	} {
		ok := word.is == ""
		for _, k := range word.known {
			ok = ok || word.is == k
		}
		if !ok {
			return &Problem{Message: fmt.Sprintf("%s %q is not known", word.what, word.is), Hint: word.hint, Object: word.is}
		}
	}
	if r.MaxDowntime < 0 || r.Freeze.HealthTimeout < 0 {
		return &Problem{Message: "a time is negative", Hint: "leave it out where there is no limit"}
	}
	return nil
}

// fits refuses what no reader would take: that must not be found out when the app has
// been stopped for it.
func (e *Estimate) fits() error {
	const (
		perFile = 2 << 10 // header and padding
		spare   = 16      // head and tail
	)
	members, frames := int64(maxImages+spare), int64(0)
	for _, v := range e.Volumes {
		raw := v.Bytes + v.Files*perFile
		members += raw/frame.SegmentSize + 2 // the last one, and the index of files
		frames += raw/frame.FrameSize + 1
	}
	if members <= maxMembers && frames <= maxFrames && len(e.Volumes) <= maxVolumes {
		return nil
	}
	return &Problem{
		Message: fmt.Sprintf("%s in %d files and %d volumes are more than one archive can hold", FormatBytes(e.Bytes), e.Files, len(e.Volumes)),
		Hint:    "leave volumes out with --exclude, and back them up by other means",
	}
}

// space checks that the store holds the archive, beside what is on its disk while it is
// written. That is without compression, since nobody knows what it will save: a full disk
// while an app's data is on its way is worse than a refusal.
func (b *backupRun) space() error {
	need := b.est.Bytes + b.est.ImageBytes
	var beside int64
	if s, ok := b.store.(onDisk); ok {
		if disk := s.Disk(); disk != "" {
			beside = b.est.Beside[disk]
		}
	}
	err := b.store.Check(b.ctx, need+beside)
	if err == nil {
		return nil
	}
	if beside > 0 && b.store.Check(b.ctx, need) == nil {
		err = &Problem{
			Message: fmt.Sprintf("%v; of that, %s are the data on its way, which is on the same disk until the archive is complete", err, FormatBytes(beside)),
			Hint:    HintOf(err), Object: ObjectOf(err), Err: err,
		}
	}
	return &StoreError{Store: b.storeName, Err: err}
}

// onDisk is a Store that knows which disk of this machine it is on, see DiskOf.
type onDisk interface{ Disk() string }

// confirmMost is how long an answer is waited for: nobody else can work on the app
// meanwhile, its nightly backup neither.
const confirmMost = 15 * time.Minute

// confirm asks whoever wants to be asked.
func (b *backupRun) confirm(ask func(*App, *Estimate) error) error {
	done := make(chan error, 1)
	go func() { done <- ask(b.app, b.est) }()
	t := time.NewTimer(confirmMost)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-t.C:
		return &Problem{
			Message: fmt.Sprintf("nobody has answered for %s; nothing was done", confirmMost),
			Hint:    "begin again, with --yes where nobody is there to answer", Object: b.app.Name,
		}
	}
}
