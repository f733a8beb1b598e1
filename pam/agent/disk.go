package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// tempPrefix begins every name that is being written; sudo skips such names (they hold a dot), and so does the spool.
const tempPrefix = ".tmp-"

// writeFile replaces path by data, wholly or not at all: a temporary name in the same directory, fsync, rename, fsync
// of the directory.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	temp := filepath.Join(dir, tempPrefix+hex.EncodeToString(random[:]))
	if err := writeSynced(temp, data, mode); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(dir)
}

func writeSynced(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	return err
}

// removeFile removes path for good; a file that is not there is removed already.
func removeFile(path string) error {
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return err
	}
	return ignoreMissing(syncDir(filepath.Dir(path)))
}

// writeRun is writeFile for /run, which is gone after a crash of the machine anyway: whole or not at all, without fsync.
func writeRun(path string, data []byte) error {
	temp := filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path))
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
