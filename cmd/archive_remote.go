package dentropycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/dentropy/dentropycloud/backup"
)

// manifest asks a running dentropy for the manifest of an archive of its stores.
func (r *remote) manifest(ctx context.Context, store, name string) (*backup.Manifest, error) {
	var a struct {
		Manifest *backup.Manifest `json:"manifest"`
	}
	if err := r.ask(ctx, http.MethodGet, archiveURI(store, name), nil, &a); err != nil {
		return nil, err
	}
	if a.Manifest == nil || a.Manifest.App == nil {
		return nil, errors.New("the running dentropy gave no manifest: is it another version?")
	}
	return a.Manifest, nil
}

// remoteObject is an archive in a store of a running dentropy.
type remoteObject struct {
	ctx  context.Context // for its lifetime, as io.ReaderAt has none
	c    *client
	uri  string
	size int64
	body io.ReadCloser // of Read; nil until it is called

	mu    sync.Mutex // guards the next
	block []byte     // what was read last, from at on
	at    int64
}

// remoteBlock is how much is asked for at once: most reading goes on where it was.
const remoteBlock = 4 << 20

func openRemote(ctx context.Context, c *client, uri string) (*remoteObject, error) {
	resp, err := c.do(ctx, http.MethodHead, uri)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	if resp.ContentLength < 0 {
		return nil, errors.New("the running dentropy does not say how large the archive is")
	}
	return &remoteObject{ctx: ctx, c: c, uri: uri, size: resp.ContentLength}, nil
}

// Size gives the size in bytes.
func (o *remoteObject) Size() int64 { return o.size }

// Read reads from the front.
func (o *remoteObject) Read(p []byte) (int, error) {
	if o.body == nil {
		resp, err := o.c.do(o.ctx, http.MethodGet, o.uri) //nolint:bodyclose // Close does
		if err != nil {
			return 0, err
		}
		o.body = resp.Body
	}
	return o.body.Read(p)
}

// ReadAt reads at any place.
func (o *remoteObject) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("a place before the beginning")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(p) {
		from := off + int64(n)
		if from >= o.size {
			return n, io.EOF
		}
		if from < o.at || from >= o.at+int64(len(o.block)) {
			if err := o.fetch(from); err != nil {
				return n, err
			}
		}
		n += copy(p[n:], o.block[from-o.at:])
	}
	return n, nil
}

// fetch reads the block in which a place is.
func (o *remoteObject) fetch(place int64) error {
	from := place - place%remoteBlock
	last := min(from+remoteBlock, o.size) - 1
	o.block = o.block[:0]
	resp, err := o.c.ranged(o.ctx, o.uri, "bytes="+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(last, 10))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusPartialContent {
		return errors.New("the running dentropy gives archives whole only: is it another version?")
	}
	block := make([]byte, last-from+1)
	if _, err := io.ReadFull(resp.Body, block); err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	o.block, o.at = block, from
	return nil
}

// Close ends the reading.
func (o *remoteObject) Close() error {
	if o.body == nil {
		return nil
	}
	return o.body.Close()
}
