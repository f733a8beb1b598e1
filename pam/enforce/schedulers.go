package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// denyFiles are read by at and crontab: one account name per line, and only while no allow file exists.
var denyFiles = []string{"/etc/cron.deny", "/etc/at.deny"}

// undo is what lockSchedulers changed in files that are not ours, so that exactly that can be taken back.
type undo struct {
	Deny    map[string][]string `json:"deny"`    // file → lines added
	Created []string            `json:"created"` // files that were not there
	Masked  []string            `json:"masked"`  // units
	Linger  []string            `json:"linger"`  // accounts that lingered
}

// lockSchedulers closes what starts processes outside the grant's unit: the user manager, lingering, cron and at.
func lockSchedulers(ctx context.Context, governed []statement.Account, passwd string) error {
	u, err := readUndo()
	if err != nil {
		return err
	}
	for _, file := range denyFiles {
		if err := denyIn(file, governed, &u); err != nil {
			return err
		}
	}
	if err := maskManagers(ctx, governed, passwd, &u); err != nil {
		return err
	}
	return writeUndo(u)
}

func denyIn(file string, governed []statement.Account, u *undo) error {
	allow := strings.TrimSuffix(file, ".deny") + ".allow"
	if text, err := os.ReadFile(allow); err == nil {
		for _, a := range governed {
			if a != "root" && slices.Contains(strings.Fields(string(text)), string(a)) {
				return problem(allow+" lets "+string(a)+" schedule jobs that outlive a window", "take "+string(a)+" out of "+allow)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil && !slices.Contains(u.Created, file) {
		u.Created = append(u.Created, file)
	}
	have, ours := strings.Fields(string(text)), ""
	for _, a := range governed {
		if slices.Contains(have, string(a)) {
			continue
		}
		ours += string(a) + "\n"
		if !slices.Contains(u.Deny[file], string(a)) {
			u.Deny[file] = append(u.Deny[file], string(a))
		}
	}
	// Recorded before the file changes: a crash in between takes back a line that is not there, which harms nobody.
	if err := writeUndo(*u); err != nil {
		return err
	}
	// Ours come first, so that what was there stays byte for byte, its last newline or the want of it included.
	return amend(file, ours+string(text))
}

// maskManagers keeps a governed account's processes out of user@UID.service, which logind would start and whose
// children no grant's unit holds (FACTS F19).
func maskManagers(ctx context.Context, governed []statement.Account, passwd string, u *undo) error {
	uids := uidsByName(passwd)
	for _, a := range governed {
		if err := endLinger(string(a), u); err != nil {
			return err
		}
		uid := uids[string(a)]
		unit := "user@" + uid + ".service"
		if uid == "" || slices.Contains(u.Masked, unit) {
			continue
		}
		u.Masked = append(u.Masked, unit)
		if err := writeUndo(*u); err != nil {
			return err
		}
		if _, err := run(ctx, "systemctl", "mask", unit); err != nil {
			return problem(err.Error(), "systemctl status "+unit)
		}
	}
	return nil
}

// lingerDir holds one empty file per account whose user manager starts at boot.
const lingerDir = "/var/lib/systemd/linger"

func endLinger(account string, u *undo) error {
	path := filepath.Join(lingerDir, account)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	u.Linger = append(u.Linger, account)
	if err := writeUndo(*u); err != nil {
		return err
	}
	return remove(path)
}

func unlockSchedulers(ctx context.Context) error {
	u, err := readUndo()
	if err != nil {
		return err
	}
	var errs []error
	for file, added := range u.Deny {
		errs = append(errs, undeny(file, added, slices.Contains(u.Created, file)))
	}
	for _, unit := range u.Masked {
		_, err := run(ctx, "systemctl", "unmask", unit)
		errs = append(errs, err)
	}
	for _, account := range u.Linger {
		errs = append(errs, write(filepath.Join(lingerDir, account), "", 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return remove(undoRecord)
}

func undeny(file string, added []string, created bool) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(text)))
	for _, name := range added {
		if i := slices.Index(lines, name+"\n"); i >= 0 {
			lines = slices.Delete(lines, i, i+1)
		}
	}
	if len(lines) == 0 && created {
		return remove(file)
	}
	return amend(file, strings.Join(lines, ""))
}

func readUndo() (undo, error) {
	u := undo{Deny: map[string][]string{}}
	text, err := os.ReadFile(undoRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	if err := statement.DecodeStrict(text, &u); err != nil {
		return u, problem(undoRecord+": "+err.Error(), "restore it from a backup, or undo by hand: "+strings.Join(denyFiles, ", "))
	}
	return u, nil
}

func writeUndo(u undo) error {
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return write(undoRecord, string(text)+"\n", 0o600)
}
