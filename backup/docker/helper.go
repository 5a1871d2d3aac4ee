package docker

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

const (
	// helperRepo is the name of the helper's images; their tag is the binary's hash.
	helperRepo = "dentropy-helper"
	// helperPath is where the program is in the image.
	helperPath = "/dentropy"
	// importTimeout is for sending the program to the engine: 100 MB over a home's uplink.
	importTimeout = 15 * time.Minute
)

// program is the helper's program.
type program struct {
	size  int64
	mod   time.Time
	arch  string // as Go names it
	image string // dentropy-helper:<hash>
	layer string // digest of the image's one layer
}

// EnsureHelper brings the helper's image to the engine, if it is not there, and gives its
// id. Anybody who may load images can give away the image's name: only an image that
// holds this very program, and nothing else, is taken.
func (p *Platform) EnsureHelper(ctx context.Context) (string, error) {
	bin, err := p.inspectBinary()
	if err != nil {
		return "", err
	}
	var info system.Info
	err = p.call(ctx, "ask for its architecture", func(ctx context.Context, c *dockerengine.Conn) error {
		info, err = c.Info(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := fits(bin.arch, info); err != nil {
		return "", err
	}
	id, odd, err := p.helperImage(ctx, bin)
	if err != nil || id != "" {
		return id, err
	}
	if odd != "" {
		p.log.Warn("an image has the helper's name and is another one: its name is taken from it", "image", bin.image, "why", odd)
	}
	p.log.Info("helper image goes to the engine", "image", bin.image, "bytes", bin.size)
	if err := p.importHelper(ctx, bin); err != nil {
		return "", err
	}
	switch id, odd, err = p.helperImage(ctx, bin); {
	case err != nil:
		return "", err
	case id == "":
		return "", fmt.Errorf("import the helper image: the engine has made something else of it: %s", cmp.Or(odd, "it is not there"))
	}
	return id, nil
}

// helperImage gives the id of the helper's image, "" where there is none that is what it
// should be; odd says why one that is there is not.
func (p *Platform) helperImage(ctx context.Context, bin program) (id, odd string, err error) {
	err = p.call(ctx, "look for the helper image", func(ctx context.Context, c *dockerengine.Conn) error {
		in, err := c.ImageInspect(ctx, bin.image)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if odd = bin.unlike(&in, p.opts.HelperArgs); odd == "" {
			id = in.ID
		}
		return nil
	})
	return id, odd, err
}

// unlike says why an image is not the helper's, "" where it is.
func (b *program) unlike(in *image.InspectResponse, args []string) string {
	if !slices.Equal(in.RootFS.Layers, []string{b.layer}) {
		return "it holds other files"
	}
	c := in.Config
	switch {
	case c == nil || !slices.Equal(c.Entrypoint, append([]string{helperPath}, args...)):
		return "it runs another program"
	case len(c.Env)+len(c.Cmd)+len(c.Volumes)+len(c.OnBuild) > 0, c.User != "", c.WorkingDir != "" && c.WorkingDir != "/",
		c.Healthcheck != nil, c.StopSignal != "":
		return "it has settings of its own"
	}
	return ""
}

// inspectBinary looks at the helper's program, once for each that there is.
func (p *Platform) inspectBinary() (program, error) {
	p.imageMu.Lock()
	defer p.imageMu.Unlock()
	f, err := os.Open(p.opts.HelperBinary)
	if err != nil {
		return program{}, &backup.Problem{
			Message: fmt.Sprintf("the helper's program cannot be read: %v", err),
			Hint:    "set DENTROPY_HELPER to the path of a static dentropy binary", Err: err,
		}
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return program{}, fmt.Errorf("read the helper's program: %w", err)
	}
	if b := p.program; b.image != "" && b.size == st.Size() && b.mod.Equal(st.ModTime()) {
		return b, nil
	}
	b := program{size: st.Size(), mod: st.ModTime()}
	if b.arch, err = staticELF(f); err != nil {
		return program{}, &backup.Problem{
			Message: fmt.Sprintf("%s cannot run in a helper container: %v", p.opts.HelperBinary, err),
			Hint:    "set DENTROPY_HELPER to the path of a static Linux binary of dentropy (built with CGO_ENABLED=0)", Err: err,
		}
	}
	sum, layer := sha256.New(), sha256.New()
	if err := writeHelperTar(layer, io.TeeReader(io.NewSectionReader(f, 0, b.size), sum), b.size); err != nil {
		return program{}, fmt.Errorf("read the helper's program: %w", err)
	}
	b.layer = "sha256:" + hex.EncodeToString(layer.Sum(nil))
	fmt.Fprintf(sum, "%q", p.opts.HelperArgs) // they are in the image, too
	b.image = helperRepo + ":" + hex.EncodeToString(sum.Sum(nil))[:12]
	p.program = b
	return b, nil
}

// staticELF gives the architecture, as Go names it, of a program that needs nothing
// but a Linux kernel.
func staticELF(r io.ReaderAt) (arch string, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", errors.New("it is no Linux program")
	}
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP {
			return "", errors.New("it is linked dynamically, and the helper's image holds no libraries")
		}
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return "", errors.New("it is no program")
	}
	little := f.ByteOrder.String() == "LittleEndian"
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_386:
		return "386", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	case elf.EM_ARM:
		return "arm", nil
	case elf.EM_RISCV:
		return "riscv64", nil
	case elf.EM_S390:
		return "s390x", nil
	case elf.EM_PPC64:
		if little {
			return "ppc64le", nil
		}
		return "ppc64", nil
	case elf.EM_LOONGARCH:
		return "loong64", nil
	}
	return "", fmt.Errorf("its architecture %v is not known", f.Machine)
}

// goArch is what Go calls an architecture that an engine names as uname does.
func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i486", "i586", "i686":
		return "386"
	case "loongarch64":
		return "loong64"
	}
	if strings.HasPrefix(machine, "arm") && machine != "arm64" {
		return "arm"
	}
	return machine // riscv64, s390x, ppc64le are the same
}

// fits reports whether a program runs on an engine.
func fits(arch string, info system.Info) error {
	if info.OSType != "" && info.OSType != "linux" {
		return &backup.Problem{Message: fmt.Sprintf("the engine runs %s containers, and backups need Linux ones", info.OSType)}
	}
	host := goArch(info.Architecture)
	if info.Architecture == "" || arch == host || arch == "386" && host == "amd64" {
		return nil
	}
	return &backup.Problem{
		Message: fmt.Sprintf("the engine runs on %s, and this program is for %s: it cannot be the helper there", host, arch),
		Hint:    "set DENTROPY_HELPER to the path of a dentropy binary for linux/" + host,
	}
}

// importHelper makes the image of the program, without a registry.
func (p *Platform) importHelper(ctx context.Context, bin program) error {
	conn, err := p.api(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	f, err := os.Open(p.opts.HelperBinary)
	if err != nil {
		return fmt.Errorf("read the helper's program: %w", err)
	}
	defer func() { _ = f.Close() }()
	entry, err := json.Marshal(append([]string{helperPath}, p.opts.HelperArgs...))
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pw.CloseWithError(writeHelperTar(pw, f, bin.size))
	}()
	resp, err := conn.ImageImport(ctx, image.ImportSource{Source: pr, SourceName: "-"}, bin.image, image.ImportOptions{
		Message: "dentropy's helper for backups",
		Changes: []string{"ENTRYPOINT " + string(entry), "LABEL " + labelHelper + "=" + strconv.Quote("1")},
	})
	if err == nil {
		err = importAnswer(resp)
		_ = resp.Close()
	}
	_ = pr.CloseWithError(fs.ErrClosed)
	<-done
	if err != nil {
		return p.failed("import the helper image", err)
	}
	return nil
}

// importAnswer reads the engine's messages about an import: an error is one of them.
func importAnswer(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var m struct {
			Error string `json:"error"`
		}
		switch err := dec.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}

// writeHelperTar writes the file system of the helper's image.
func writeHelperTar(w io.Writer, f io.Reader, size int64) error {
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Name: strings.TrimPrefix(helperPath, "/"), Mode: 0o755, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, f, size); err != nil {
		return err
	}
	return tw.Close()
}
