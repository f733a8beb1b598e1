package mortal

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// Ready stops the calling program until AtEachSystemCall goes on counting from here. Call it on the main thread, which an
// init with runtime.LockOSThread keeps for the main goroutine, and do the work there.
func Ready() error { return syscall.Kill(os.Getpid(), syscall.SIGSTOP) }

// most is how many system calls one write may take before the test is believed to have lost count.
const most = 400

// AtEachSystemCall runs this test binary again with env set, up to its call of Ready and then through n more entries to and
// returns from the kernel, and kills it there; and calls look. It does so for n = 1, 2, … until a run comes to its end alive,
// and returns how many were killed.
func AtEachSystemCall(t testing.TB, env string, look func(n int)) int {
	t.Helper()
	runtime.LockOSThread() // whoever traces is one thread
	defer runtime.UnlockOSThread()
	for n := 1; n <= most; n++ {
		alive := killedAt(t, env, n)
		look(n)
		if alive {
			return n - 1
		}
	}
	t.Fatalf("no end after %d system calls", most)
	return 0
}

func killedAt(t testing.TB, env string, n int) (alive bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env, "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if stop := await(t, pid); stop != syscall.SIGTRAP { // after exec
		t.Fatalf("stopped by %v", stop)
	}
	resume := syscall.PtraceCont
	if err := syscall.PtraceSetOptions(pid, syscall.PTRACE_O_TRACESYSGOOD); err != nil {
		t.Fatal(err)
	}
	for left, signal := n, 0; left > 0; {
		if err := resume(pid, signal); err != nil {
			t.Fatal(err)
		}
		switch stop := await(t, pid); stop {
		case gone:
			return true
		case syscall.SIGTRAP | 0x80:
			left, signal = left-1, 0
		case syscall.SIGSTOP:
			resume, signal = syscall.PtraceSyscall, 0
		default:
			signal = int(stop)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for await(t, pid) != gone {
	}
	return false
}

// gone is no signal: the program has ended.
const gone syscall.Signal = -1

// await returns what stopped the program's main thread.
func await(t testing.TB, pid int) syscall.Signal {
	t.Helper()
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			t.Fatal(err)
		case status.Stopped():
			return status.StopSignal()
		default:
			return gone
		}
	}
}
