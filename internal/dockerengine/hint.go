package dockerengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
)

var rangeText = regexp.MustCompile(`(?:Minimum|Maximum) supported API version is (\d+\.\d+)`)

// WantedVersion returns the API version that the engine asks for in err, or "".
func WantedVersion(err error) string {
	if err == nil {
		return ""
	}
	if m := rangeText.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}

// Hint adds what the user can do to errors that have a known remedy. proxied says what
// a socket proxy in front of Docker must allow.
func Hint(err error, proxied string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case errors.Is(err, fs.ErrPermission), os.IsPermission(err), strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w (add this user to the group that owns the socket, usually \"docker\", or run as root)", err)
	case errdefs.IsPermissionDenied(err), strings.Contains(text, "Forbidden"):
		return fmt.Errorf("%w (a socket proxy in front of Docker must allow %s)", err, proxied)
	case strings.Contains(text, "Cannot connect to the Docker daemon"), strings.Contains(text, "no such file"):
		return fmt.Errorf("%w (install or start Docker, or name its endpoint)", err)
	case strings.Contains(text, "Permission denied (publickey"): // what follows is ssh's
		return fmt.Errorf("%w (give that user a key that the ssh command of this one can use without a passphrase or with an agent)", err)
	case strings.Contains(text, "Host key verification failed"):
		return fmt.Errorf("%w (connect once by hand with the ssh command, as this user, so that it knows the machine's key)", err)
	case errors.Is(err, exec.ErrNotFound), strings.Contains(text, exec.ErrNotFound.Error()):
		return fmt.Errorf("%w (install the OpenSSH client, or use a tcp:// endpoint with TLS)", err)
	}
	return err
}
