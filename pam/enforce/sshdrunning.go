package enforce

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// sshd is one SSH server of this machine: what it is told on its command line, of which -f and -o alone matter here. The
// command line goes before any file.
type sshd struct{ args []string }

// config is the file that it reads.
func (s sshd) config() string {
	if i := slices.Index(s.args, "-f"); i >= 0 {
		return s.args[i+1]
	}
	return sshdConfig
}

// String is how it is called by hand.
func (s sshd) String() string { return strings.Join(append([]string{"sshd"}, s.args...), " ") }

// strangers are SSH servers that keep no promise of ours: they read no sshd_config, and Debian builds them without PAM.
var strangers = []string{"dropbear", "tinysshd"}

// sshds are the one that Debian starts, those that listen now, and those that systemd has a service for; each once.
func sshds(ctx context.Context) ([]sshd, error) {
	listening, err := listeners()
	if err != nil {
		return nil, err
	}
	services, err := services(ctx)
	if err != nil {
		return nil, err
	}
	found := []sshd{{}}
	for _, words := range slices.Concat(listening, services) {
		s := sshd{configOptions(words)}
		if !slices.ContainsFunc(found, func(have sshd) bool { return slices.Equal(have.args, s.args) }) {
			found = append(found, s)
		}
	}
	return found, nil
}

// listeners are the command lines of root's sshds in this machine, a container's not among them: one that somebody else runs
// lets in nobody but whom it runs as, and would let anybody stop an enforce.
func listeners() ([][]string, error) {
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	var found [][]string
	for _, link := range programs {
		dir := filepath.Dir(link)
		program, err := os.Readlink(link)
		if err != nil {
			continue // gone, or a kernel thread
		}
		name := strings.TrimSuffix(filepath.Base(program), " (deleted)")
		if name != "sshd" && !slices.Contains(strangers, name) {
			continue
		}
		if space, err := os.Readlink(dir + "/ns/pid"); err != nil || space != here || !ofRoot(dir) {
			continue
		}
		if name != "sshd" {
			return nil, problem(name+" (process "+filepath.Base(dir)+") lets people in by keys and passwords that pim-ssh never sees", "stop it, or remove its package: apt remove "+name)
		}
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue
		}
		if words := listenerWords(line); words != nil {
			found = append(found, words)
		}
	}
	return found, nil
}

func ofRoot(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}

// listenerWords reads `sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups`, which is what sshd calls itself, and the
// words that it was started with before that. A connection's own sshd, `sshd: alice [priv]`, has none.
func listenerWords(cmdline []byte) []string {
	text := string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
	title, titled := strings.CutPrefix(text, "sshd: ")
	words, _, listens := strings.Cut(title, " [listener]")
	if titled && !listens {
		return nil
	}
	return strings.Fields(words)
}

// services are the command lines of sshd in systemd's services: also of one that does not run now.
func services(ctx context.Context) ([][]string, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, nil
	}
	out, err := run(ctx, "systemctl", "show", "--all", "--property=ExecStart", "*.service")
	if err != nil {
		return nil, problem(err.Error(), "systemctl status")
	}
	var found [][]string
	for line := range strings.Lines(out) {
		_, line, _ = strings.Cut(line, "argv[]=")
		line, _, _ = strings.Cut(line, " ; ")
		if words := strings.Fields(line); len(words) > 0 && filepath.Base(words[0]) == "sshd" {
			found = append(found, words)
		}
	}
	return found, nil
}

// withValue are sshd's options that take one.
const withValue = "bCcEfghkopu"

// configOptions keeps -f and -o with their values from a command line, read as getopt does.
func configOptions(words []string) []string {
	var kept []string
	for i := 1; i < len(words); i++ {
		letters, isOption := strings.CutPrefix(words[i], "-")
		at := strings.IndexAny(letters, withValue)
		if !isOption || at < 0 {
			continue
		}
		value := letters[at+1:]
		if value == "" && i+1 < len(words) {
			i++
			value = words[i]
		}
		if letters[at] == 'f' || letters[at] == 'o' {
			kept = append(kept, "-"+letters[at:at+1], value)
		}
	}
	return kept
}
