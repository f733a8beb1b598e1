package pamtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
)

// Program is one thing gcc makes out of pam/module.
type Program struct {
	Output  string   // file name inside the directory given to Build
	Sources []string // beside client.c, relative to pam/module
	Flags   []string // after the common ones
}

// Module is pam_pim.so.
func Module() Program {
	return Program{Output: "pam_pim.so", Sources: []string{"pam_pim.c", "governed.c", "cgroup.c", "host.h"},
		Flags: []string{"-shared", "-fPIC", "-Wl,-z,defs", "-lpam"}}
}

// Principals is pim-principals, asking at the socket named.
func Principals(socket string) Program {
	return Program{Output: "pim-principals", Sources: []string{"pim_principals.c"},
		Flags: []string{fmt.Sprintf("-DPIM_SOCKET=%q", socket)}}
}

// Strict makes every doubt of the compiler an error.
var Strict = []string{"-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Wcast-qual",
	"-Wstrict-prototypes", "-Wvla", "-fvisibility=hidden", "-fstack-protector-strong", "-Wl,-z,relro,-z,now"}

// Sanitized is Strict and reports undefined behaviour and bad memory use at run time.
var Sanitized = append(slices.Clone(Strict), "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

// Build compiles p into dir, world-readable, and returns its path. The error
// carries gcc's own words.
func Build(dir string, p Program, flags []string) (string, error) {
	_, self, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(self), "..", "module")
	output := filepath.Join(dir, p.Output)
	args := append(slices.Clone(flags), "-o", output)
	for _, c := range append([]string{"client.h", "client.c"}, p.Sources...) {
		if !filepath.IsAbs(c) {
			c = filepath.Join(source, c)
		}
		// Reading it here tells go test's cache that the result depends on it.
		if _, err := os.ReadFile(c); err != nil {
			return "", err
		}
		if filepath.Ext(c) == ".c" {
			args = append(args, c)
		}
	}
	args = append(append(args, "-I", source), p.Flags...)
	if words, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc %s: %w\n%s", p.Output, err, words)
	}
	return output, nil
}
