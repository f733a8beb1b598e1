package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Names in the spool directory.
const (
	enrolmentFile = "enrolment.json"
	identityFile  = "identity"
	machineFile   = "machine"    // sha256 of the machine-id this spool belongs to
	enrolledFile  = "enrolled"   // exists once a broker has taken the enrolment
	newestFile    = "newest"     // the newest policy revision ever verified here
	inStepFile    = "in-step"    // the policy revision /etc was last brought in step with
	reachedFile   = "reached"    // the newest log index a broker ever named here
	headFile      = "checkpoint" // the newest checkpoint of the brokers' record that was verified here
	epochFile     = "epoch.json" // the newest restore of the brokers that was verified here
	sequenceFile  = "sequence"   // the number of the last report ever made, whether or not it was posted since
	heardFile     = "heard"
	floorFile     = "floor"
	policyDir     = "policy"
	dossierDir    = "dossiers"
	tombstoneDir  = "tombstones"
	reportDir     = "reports"
	forkDir       = "fork" // evidence that stewards signed two revisions of one number
	asideDir      = "aside"
)

// Spool is the host's memory on disk. Everything in it is a proof that is verified again when it is read, or a word
// that can only take access away (tombstones, floor, newest). It is not safe for concurrent use.
type Spool struct {
	dir string
	log *slog.Logger
	now func() time.Time
}

// NewSpool makes the directories of a spool in dir, which must be on a persistent disk.
func NewSpool(dir string, log *slog.Logger, now func() time.Time) (*Spool, error) {
	for _, sub := range []string{"", policyDir, dossierDir, tombstoneDir, reportDir, forkDir, asideDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &Spool{dir: dir, log: log, now: now}, nil
}

// Tombstone says that the grant of one request opens nothing here, whatever is shown later.
type Tombstone struct {
	How EndedHow       `json:"how"`
	At  statement.Time `json:"at"`
}

// EndedHow is a way to end, or "lapse" for a window that was over.
type EndedHow string

const endedByLapse EndedHow = "lapse"

func (s *Spool) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func policyName(revision uint64) string { return fmt.Sprintf("%08d.json", revision) }

// putPolicy keeps the newest verified revision of a chain. checkNewest notes that it is the newest.
func (s *Spool) putPolicy(chain policy.Chain) error {
	proofs := chain.Proofs()
	return s.putJSON(proofs[len(proofs)-1], policyDir, policyName(chain.Ref().Revision))
}

// putFork keeps the evidence of a fork.
func (s *Spool) putFork(fork *policy.Fork) error {
	return s.putJSON(fork.Other, forkDir, policyName(fork.Revision))
}

func (s *Spool) putDossier(d broker.Dossier) error {
	return s.putJSON(d, dossierDir, string(d.Stem())+".json")
}

func (s *Spool) dropDossier(stem broker.Stem) error {
	return removeFile(s.path(dossierDir, string(stem)+".json"))
}

func (s *Spool) putTombstone(request statement.Hash, t Tombstone) error {
	return s.putJSON(t, tombstoneDir, request.String()+".json")
}

func (s *Spool) putTime(name string, t statement.Time) error {
	return writeFile(s.path(name), []byte(t.String()+"\n"), 0o600)
}

func (s *Spool) putJSON(v any, parts ...string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("spool %s: %w", filepath.Join(parts...), err)
	}
	if err := writeFile(s.path(parts...), data, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// setAside moves a file that cannot be believed out of the way, and says so: it is never read again and never lost.
func (s *Spool) setAside(why error, parts ...string) {
	from := s.path(parts...)
	to := s.path(asideDir, fmt.Sprintf("%s.%d", strings.Join(parts, "-"), s.now().UnixNano()))
	err := errors.Join(os.Rename(from, to), syncDir(filepath.Dir(from)))
	s.log.Error("spool file refused and set aside", "file", from, "kept", to, "why", why, "error", err)
}

// names lists the files of one directory, sorted, and removes what an interrupted write left behind.
func (s *Spool) names(dir string) ([]string, error) {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(s.path(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("spool: %w", err)
			}
			continue
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// maxFile is the largest spool file in bytes that is read: a dossier of a thousand decisions fits.
const maxFile = 8 << 20

// read returns one file's bytes; missing is fs.ErrNotExist.
func (s *Spool) read(parts ...string) ([]byte, error) {
	path := s.path(parts...)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// holds reports whether a file is there, whatever is in it.
func (s *Spool) holds(parts ...string) bool {
	_, err := os.Lstat(s.path(parts...))
	return err == nil
}

// readTime reads a file that holds one instant; missing or torn is zero, which is the careful answer for both users:
// never heard from a broker, and a floor that newestTime raises again.
func (s *Spool) readTime(name string) statement.Time {
	data, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var t statement.Time
	if err == nil {
		t, err = statement.ParseTime(strings.TrimSpace(string(data)))
	}
	if err != nil {
		s.setAside(err, name)
		return 0
	}
	return t
}

// notedRef reports whether a file names exactly this revision.
func (s *Spool) notedRef(name string, ref statement.PolicyRef) bool {
	var noted statement.PolicyRef
	data, err := s.read(name)
	return err == nil && statement.DecodeStrict(data, &noted) == nil && noted == ref
}

// number reads a file that holds one number; missing is 0.
func (s *Spool) number(name string) (uint64, error) {
	data, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("spool: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("spool %s: %w", name, err)
	}
	return n, nil
}

func (s *Spool) putNumber(name string, n uint64) error {
	return writeFile(s.path(name), []byte(strconv.FormatUint(n, 10)+"\n"), 0o600)
}
