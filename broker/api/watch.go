package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// silence is how long a stream may say nothing before it counts as dead.
const silence = 3 * BeatEvery * time.Second

// Stream reads one watch stream. It is not safe for concurrent use, except Close. Reconnecting is the caller's: after
// an error from Next, Watch again with Position, after a pause with jitter.
type Stream struct {
	body   io.ReadCloser
	lines  *bufio.Reader
	cancel context.CancelFunc
	dead   *time.Timer // cancels the stream after silence; it runs only while Next waits
	after  *uint64
}

// Watch opens the stream of frames after the log index *after, or from the beginning when after is nil.
func (c *Client) Watch(ctx context.Context, after *uint64) (*Stream, error) {
	path := "/v1/watch"
	if after != nil {
		path += "?after=" + strconv.FormatUint(*after, 10)
	}
	var stream *Stream
	err := c.each(func(address string) (err error) {
		stream, err = c.watchOne(ctx, address, path, after)
		return err
	})
	return stream, err
}

func (c *Client) watchOne(ctx context.Context, address, path string, after *uint64) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	response, err := c.send(ctx, address, http.MethodGet, path, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer cancel()
		return nil, readAnswer(response, nil)
	}
	dead := time.AfterFunc(silence, cancel)
	dead.Stop()
	return &Stream{body: response.Body, lines: bufio.NewReaderSize(response.Body, 64<<10), cancel: cancel, dead: dead, after: after}, nil
}

// Next waits for the next frame. It fails when the stream ends, says nothing for three beats, or says nonsense.
func (s *Stream) Next() (Frame, error) {
	s.dead.Reset(silence)
	line, err := s.line()
	s.dead.Stop()
	if err != nil {
		return Frame{}, &broker.Error{Kind: broker.Unavailable, Msg: "the watch stream ended", Err: err}
	}
	var frame Frame
	if err := statement.DecodeStrict(line, &frame); err != nil {
		return Frame{}, &broker.Error{Kind: broker.Invalid, Msg: "the watch stream is not understood", Err: err}
	}
	if !frame.whole() {
		return Frame{}, &broker.Error{Kind: broker.Invalid, Msg: "a frame of the watch stream says nothing, or too much"}
	}
	if frame.Index != nil {
		s.after = frame.Index
	}
	return frame, nil
}

// line reads one line of at most MaxFrame bytes.
func (s *Stream) line() ([]byte, error) {
	var line []byte
	for {
		part, err := s.lines.ReadSlice('\n')
		if len(line)+len(part) > MaxFrame {
			return nil, errors.New("frame too large")
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// Position is the index to watch after so that nothing is missed and nothing said twice; nil is the beginning.
func (s *Stream) Position() *uint64 { return s.after }

// Close ends the stream; a Next that waits returns an error.
func (s *Stream) Close() {
	s.dead.Stop()
	s.cancel()
	s.body.Close()
}
