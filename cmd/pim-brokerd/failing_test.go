package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// failSyncsWhenTold waits for SIGUSR1 and has the kernel answer every later fsync and fdatasync of this process with EIO, as a
// disk does whose last sectors have gone: a seccomp filter on all of its threads. The program is the real one.
func failSyncsWhenTold() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGUSR1)
	<-told
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		panic(errno)
	}
	fmt.Fprintln(os.Stderr, "syncs fail from now on")
}

// TestABrokerWhoseDiskFailsEndsAtOnce fails the leader's syncs under it: it ends by itself, says why and what to type, tries
// none a second time, and the disk is not used again. The other two go on.
func TestABrokerWhoseDiskFailsEndsAtOnce(t *testing.T) {
	r := newTrio(t)
	for range 5 {
		_, err := r.as("alice").Submit(t.Context(), r.ask("alice"))
		r.must(err)
	}
	leader := r.leader()
	b := r.all[leader]
	r.signal(leader, unix.SIGUSR1)
	start := time.Now()
	answer, err := r.as("alice").Submit(t.Context(), r.ask("alice"))
	r.must(err)
	t.Logf("the next write was acknowledged after %s", time.Since(start).Round(time.Millisecond))
	ended := make(chan error, 1)
	go func() { ended <- b.cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(15 * time.Second):
		t.Fatal("it goes on")
	}
	if code := b.cmd.ProcessState.ExitCode(); err == nil || code <= 0 {
		t.Errorf("it ended with %d, %v", code, err)
	}
	if said := b.said.String(); !strings.Contains(said, "the disk failed: input/output error") {
		t.Errorf("it says\n%s", said)
	}
	again := program(t.Context(), "run", "--config", b.config)
	out, err := again.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the disk failed: input/output error") || !strings.Contains(string(out), "type pim-brokerd quarantine") {
		t.Errorf("the next start ends with %v and says\n%s", err, out)
	}
	if _, err := r.as("alice").Grant(t.Context(), string(*answer.Grant)); err != nil {
		t.Error(err)
	}
	b.cmd = nil
}
