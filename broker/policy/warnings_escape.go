package policy

import (
	"path"
	"slices"
	"strings"
)

// What a well-known program gives whoever may run it, however its arguments are fixed.
const (
	givesShell    = "starts a shell from inside"
	runsOthers    = "runs what its arguments or files name"
	writesFiles   = "writes or replaces files, and with them what runs next"
	changesRights = "changes who owns or may write a file, or runs it"
	installs      = "runs the scripts of what it installs"
	loads         = "loads code into the kernel, or another file system over this one"
)

// escapes is what turns a rule for one command into a rule for all. It is a list of what people meet, not of all there is.
var escapes = words(map[string]string{
	givesShell: "vi vim view vimdiff nvim nano pico ed ex emacs emacsclient joe mcedit less more most pg man info top htop atop ftp sftp telnet mysql mariadb psql " +
		"sqlite3 redis-cli gdb lldb script screen tmux mc lynx w3m mutt crash",
	runsOthers: "sh bash dash zsh ksh fish csh tcsh busybox ash rbash awk gawk mawk nawk perl python python2 python3 ruby node nodejs lua php tclsh expect irb " +
		"find xargs watch nice nohup ionice timeout stdbuf time strace ltrace setsid taskset flock parallel entr run-parts make ssh scp rsync tar zip unzip 7z git svn " +
		"docker podman nerdctl ctr kubectl lxc virsh vagrant nsenter chroot unshare systemd-run systemd-nspawn machinectl su sudo runuser doas pkexec setpriv capsh at batch " +
		"crontab ansible ansible-playbook puppet salt-call openssl nmap tcpdump logrotate service gcc cc ld",
	writesFiles:   "tee cp mv dd ln install sed truncate split sponge patch cpio restore wget curl visudo vipw vigr sudoedit base64 xxd",
	changesRights: "chmod chown chgrp setfacl setcap chattr useradd usermod userdel groupadd groupmod passwd chpasswd gpasswd newusers",
	installs:      "apt apt-get aptitude dpkg rpm yum dnf zypper pacman apk snap flatpak pip pip3 npm yarn gem cpan cpanm cargo go easy_install",
	loads:         "mount umount insmod modprobe kexec losetup debugfs",
})

func words(lists map[string]string) map[string]string {
	by := map[string]string{}
	for why, list := range lists {
		for word := range strings.FieldsSeq(list) {
			by[word] = why
		}
	}
	return by
}

// escapes warns of commands that give more than they name.
func (c *checker) escapes(at []string, rule SudoRule) {
	for _, command := range rule.Commands {
		if command == All && rule.As == "root" {
			c.say(below(at, string(All)), "is everything: whoever has it is root for the window, and can alter the host for good")
		}
		if why := escape(command); why != "" {
			c.say(below(at, string(command)), "is as good as ALL as %s: %s", rule.As, why)
		}
	}
}

// escape says in which way a command gives everything; "" when it is none that is known to.
func escape(command Command) string {
	if command == All {
		return ""
	}
	words := strings.Split(string(command), " ")
	program := path.Base(words[0])
	switch program {
	case "env":
		return enveloped(words[1:])
	case "systemctl":
		return unitless(words[1:])
	}
	why := escapes[program]
	if why == "" { // python3.12, gcc-14
		why = escapes[strings.TrimRight(program, "0123456789.-")]
	}
	if why == "" {
		return ""
	}
	return program + " " + why
}

// enveloped is what env gives: its command, in an environment that may make any program do anything.
func enveloped(args []string) string {
	for i, arg := range args {
		name, _, assigns := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "-"):
			return "env " + runsOthers
		case !assigns && strings.HasPrefix(arg, "/"):
			return escape(Command(strings.Join(args[i:], " ")))
		case !assigns:
			return "env looks for " + arg + " wherever PATH says"
		case !slices.Contains([]string{"LANG", "LC_ALL", "TZ", "TERM"}, name):
			return "env sets " + name + ", which may make the program do anything"
		}
	}
	return "env " + runsOthers
}

// verbs of systemctl that do no more than they say to the units they name.
var verbs = strings.Fields("start stop restart try-restart reload reload-or-restart status is-active is-enabled is-failed show cat enable disable mask unmask reset-failed kill list-dependencies")

// quiet are its options that change nothing of that.
var quiet = strings.Fields("--no-pager --quiet --now --no-block --full --all")

// unitless is what systemctl gives when it is not bound to units by name.
func unitless(args []string) string {
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return slices.Contains(quiet, arg) })
	if len(args) == 1 && slices.Contains([]string{"daemon-reload", "list-units", "list-timers", "is-system-running", "reboot", "poweroff"}, args[0]) {
		return ""
	}
	if len(args) < 2 || !slices.Contains(verbs, args[0]) {
		return "systemctl without a verb and an exact unit runs any unit, or edits one"
	}
	for _, unit := range args[1:] {
		if strings.HasPrefix(unit, "-") || strings.Contains(unit, "/") {
			return "systemctl with " + unit + " is not bound to a unit of the system's own"
		}
	}
	return ""
}
