package enforce

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Alone waits until nobody else changes this host's /etc, and returns the file that keeps it so until it is closed or its
// process dies. Who waited must read the policy after it: the other may have brought a newer one.
func Alone(lock string) (*os.File, error) {
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err {
		case nil:
			return f, nil
		case unix.EINTR:
		default:
			f.Close()
			return nil, fmt.Errorf("%s: %w", lock, err)
		}
	}
}
