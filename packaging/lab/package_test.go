//go:build lab

package lab

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// top is the repository, from here.
const top = "../.."

// packages makes the Debian packages, and returns their files by name. No lab makes them meanwhile.
func packages(t *testing.T) map[string]string {
	t.Helper()
	cache := os.Getenv("LAB_CACHE")
	if cache == "" {
		cache = filepath.Join(top, ".cache/lab")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "flock", filepath.Join(cache, "build.lock"), "make", "-s", "-C", top, "package")
	return debs(t, filepath.Join(top, "build"))
}

func debs(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), "_")
		found[name] = file
	}
	for _, name := range []string{"pim-ssh", "pim-ssh-broker", "pim-ssh-host"} {
		if found[name] == "" || len(files) != 3 {
			t.Fatalf("make package left %q, want one each of pim-ssh, pim-ssh-broker and pim-ssh-host", files)
		}
	}
	return found
}

// tool runs a program of this machine's and returns its output; the test stops when it fails.
func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	var complaint bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &complaint)
	}
	return out
}

// TestPackagesAreReproducible: another folder, another time, the same bytes.
func TestPackagesAreReproducible(t *testing.T) {
	t.Parallel()
	first := packages(t)
	elsewhere := t.TempDir()
	tool(t, "sh", "-c", `tar -C "$0" --exclude ./.git --exclude ./build --exclude ./.cache -c . | tar -C "$1" -x`, top, elsewhere)
	epoch := strings.TrimSpace(string(tool(t, "git", "-C", top, "log", "-1", "--format=%ct")))
	tool(t, "make", "-s", "-C", elsewhere, "package", "SOURCE_DATE_EPOCH="+epoch)
	for name, second := range debs(t, filepath.Join(elsewhere, "build")) {
		if !bytes.Equal(read(t, first[name]), read(t, second)) {
			t.Errorf("%s differs between two builds", name)
		}
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// programs is what may be run, and the only thing in each package that may.
var programs = map[string][]string{
	"pim-ssh":        {"/usr/bin/pim-ssh"},
	"pim-ssh-broker": {"/usr/sbin/pim-brokerd"},
	"pim-ssh-host":   {"/usr/sbin/pim-hostd", "/usr/lib/pim-ssh/pim-principals"},
}

// others is what each package must have besides.
var others = map[string][]string{
	"pim-ssh": {"/usr/share/bash-completion/completions/pim-ssh", "/usr/share/zsh/vendor-completions/_pim-ssh",
		"/usr/share/fish/vendor_completions.d/pim-ssh.fish", "/usr/share/man/man5/policy.yaml.5.gz", "/usr/share/doc/pim-ssh/examples/policy.yaml",
		"/usr/share/doc/pim-ssh/examples/scenarios.yaml"},
	"pim-ssh-broker": {"/usr/lib/systemd/system/pim-brokerd.service", "/usr/share/doc/pim-ssh-broker/examples/broker.yaml"},
	"pim-ssh-host": {"/usr/lib/systemd/system/pim-hostd.service", "/usr/lib/systemd/system/pim-hostd.socket", "/usr/lib/sysusers.d/pim-ssh-host.conf",
		"/usr/lib/tmpfiles.d/pim-ssh-host.conf", "/usr/share/pam-configs/pim-ssh", "/usr/share/pam-configs/systemd+pim-ssh",
		"/usr/share/doc/pim-ssh-host/examples/host.yaml"},
}

// TestPackages holds each package to what Debian asks and to what we promise of installing it.
func TestPackages(t *testing.T) {
	t.Parallel()
	for name, file := range packages(t) {
		t.Run(name, func(t *testing.T) {
			checkControl(t, name, file)
			files := checkFiles(t, name, file)
			doc := "/usr/share/doc/" + name + "/"
			for _, want := range slices.Concat(programs[name], others[name], []string{doc + "copyright", doc + "changelog.gz"}) {
				if !slices.Contains(files, want) {
					t.Errorf("no %s", want)
				}
			}
			for _, program := range programs[name] {
				page := path.Base(program) + map[string]string{"/usr/bin": ".1", "/usr/sbin": ".8"}[path.Dir(program)] + ".gz"
				if strings.HasPrefix(page, "pim-principals") {
					continue // sshd calls it, nobody else
				}
				if !slices.ContainsFunc(files, func(f string) bool { return path.Base(f) == page }) {
					t.Errorf("%s has no manual", program)
				}
			}
		})
	}
}

// checkControl: who made it, what it needs, and scripts that stop at the first error.
func checkControl(t *testing.T, name, file string) {
	t.Helper()
	fields := string(tool(t, "dpkg-deb", "--field", file))
	for _, want := range []string{"Package: " + name + "\n", "\nVersion: ", "\nArchitecture: ", "\nMaintainer: ", "\nSection: admin\n", "\nDepends: ", "\nDescription: ", "\nInstalled-Size: "} {
		if !strings.Contains("\n"+fields, want) {
			t.Errorf("control: no %q in\n%s", want, fields)
		}
	}
	for h, content := range archive(t, "--ctrl-tarfile", file) {
		switch path.Base(h.Name) {
		case "postinst", "prerm", "postrm":
			if !bytes.HasPrefix(content, []byte("#!/bin/sh\n")) || !bytes.Contains(content, []byte("\nset -e\n")) || h.Mode != 0o755 {
				t.Errorf("%s: want #!/bin/sh, set -e and mode 0755", h.Name)
			}
		case "control", "md5sums", ".":
		default:
			t.Errorf("%s: nothing else is wanted among what dpkg reads", h.Name) // conffiles: nothing of ours stands in /etc
		}
	}
}

// checkFiles returns the files, after a look at each.
func checkFiles(t *testing.T, name, file string) []string {
	t.Helper()
	sums := map[string]string{}
	for h, content := range archive(t, "--ctrl-tarfile", file) {
		if path.Base(h.Name) != "md5sums" {
			continue
		}
		for line := range strings.Lines(string(content)) {
			sum, at, _ := strings.Cut(strings.TrimSpace(line), "  ")
			sums["/"+at] = sum
		}
	}
	var files []string
	for h, content := range archive(t, "--fsys-tarfile", file) {
		at := strings.TrimPrefix(h.Name, ".")
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" || !strings.HasPrefix(at, "/usr/") {
			t.Errorf("%s: %s:%s, want all of it root's, and below /usr", at, h.Uname, h.Gname)
		}
		want := int64(0o644)
		if h.Typeflag == tar.TypeDir || slices.Contains(programs[name], at) {
			want = 0o755
		}
		if h.Mode&0o7777 != want { // no setuid, setgid or sticky bit, nobody but root writes
			t.Errorf("%s: mode %04o, want %04o", at, h.Mode, want)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		files = append(files, at)
		if sum := md5.Sum(content); h.Typeflag != tar.TypeReg || sums[at] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: type %c, md5 %s in md5sums", at, h.Typeflag, sums[at])
		}
		checkContent(t, at, content)
	}
	if len(files) != len(sums) {
		t.Errorf("%d files, %d in md5sums", len(files), len(sums))
	}
	return files
}

func checkContent(t *testing.T, at string, content []byte) {
	t.Helper()
	if strings.HasSuffix(at, ".gz") {
		zipped, err := gzip.NewReader(bytes.NewReader(content))
		if err != nil || !zipped.ModTime.IsZero() || zipped.Name != "" {
			t.Errorf("%s: %v, want gzip -n", at, err)
		}
	}
	if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
		return
	}
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if program.Section(".symtab") != nil || program.Section(".debug_info") != nil {
		t.Errorf("%s is not stripped", at)
	}
	if bytes.Contains(content, []byte("/work/")) || bytes.Contains(content, []byte(os.Getenv("HOME")+"/go/")) {
		t.Errorf("%s names folders of the machine that built it", at)
	}
}

// archive yields the members of one of a package's two archives.
func archive(t *testing.T, which, file string) func(func(*tar.Header, []byte) bool) {
	t.Helper()
	members := tar.NewReader(bytes.NewReader(tool(t, "dpkg-deb", which, file)))
	return func(yield func(*tar.Header, []byte) bool) {
		for {
			h, err := members.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(members)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(h, content) {
				return
			}
		}
	}
}

// newer is the package as its next version would be: other bytes in the programs, one number up.
func newer(t *testing.T, deb string) string {
	t.Helper()
	dir := t.TempDir()
	tool(t, "dpkg-deb", "-R", deb, dir+"/tree")
	control := dir + "/tree/DEBIAN/control"
	version := strings.TrimSpace(string(tool(t, "dpkg-deb", "--field", deb, "Version")))
	text := strings.Replace(string(read(t, control)), "Version: "+version+"\n", "Version: "+version+"+next\n", 1)
	if err := os.WriteFile(control, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "dpkg-deb", "-b", dir+"/tree", fmt.Sprintf("%s/next.deb", dir))
	return dir + "/next.deb"
}
