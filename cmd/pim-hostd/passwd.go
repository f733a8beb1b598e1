package main

import (
	"bytes"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"pim-ssh/broker/statement"
)

// passwd resolves account names on every start. Names in /etc/passwd come from a copy that is read again whenever the
// file is another one (it is replaced by rename) or was touched; all others go through the name service switch.
type passwd struct {
	path string
	mu   sync.Mutex
	seen identity
	uids map[statement.Account]uint32
}

// identity tells one state of a file from another.
type identity struct {
	device, inode    uint64
	size             int64
	modified, status unix.Timespec
}

func newPasswd(path string) *passwd { return &passwd{path: path} }

// lookup returns the uid of an account.
func (p *passwd) lookup(account statement.Account) (uint32, error) {
	if uid, found := p.local(account); found {
		return uid, nil
	}
	u, err := user.Lookup(string(account))
	if err != nil {
		return 0, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(uid), err
}

func (p *passwd) local(account statement.Account) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Stat(p.path, &st); err != nil {
		return 0, false
	}
	if now := (identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}); now != p.seen || p.uids == nil {
		data, err := os.ReadFile(p.path)
		if err != nil {
			return 0, false
		}
		p.seen, p.uids = now, parsePasswd(data)
	}
	uid, found := p.uids[account]
	return uid, found
}

// parsePasswd reads name:x:uid:… lines; the first of a name counts, as in libc, and what it cannot read it leaves to it.
func parsePasswd(data []byte) map[statement.Account]uint32 {
	uids := map[statement.Account]uint32{}
	for line := range bytes.Lines(data) {
		fields := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(fields) != 7 {
			continue
		}
		account, err := statement.ParseAccount(fields[0])
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(fields[2], 10, 32)
		if _, again := uids[account]; err == nil && !again {
			uids[account] = uint32(uid)
		}
	}
	return uids
}
