package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

func (c *Client) get(ctx context.Context, pathAndQuery string, into any) error {
	return c.call(ctx, http.MethodGet, pathAndQuery, nil, into)
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return &broker.Error{Kind: broker.Invalid, Msg: "the statement does not encode", Err: err}
	}
	return c.call(ctx, http.MethodPost, path, encoded, into)
}

// call asks one broker after the other. Only a broker that is unreachable, silent or says it is unavailable passes the
// question on; every other answer stands. When all of several brokers are, it goes round again for as long as they may take
// to elect a leader.
func (c *Client) call(ctx context.Context, method, pathAndQuery string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	again := time.Now().Add(electing)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := c.each(func(address string) error {
			ctx, cancel := context.WithTimeout(ctx, c.patience)
			defer cancel()
			response, err := c.send(ctx, address, method, pathAndQuery, body)
			if err != nil {
				return err
			}
			return readAnswer(response, into)
		})
		if !unavailable(err) || errors.As(err, new(*unsigned)) || len(c.addresses) == 1 || time.Now().After(again) {
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return err
		}
	}
}

// unsigned says that a read was not signed: asking elsewhere would only ask the person for another signature.
type unsigned struct{ error }

// Unwrap returns why.
func (u *unsigned) Unwrap() error { return u.error }

// each tries one broker after the other, beginning with the one that answered last, until one answers. What is no
// *broker.Error counts as no answer.
func (c *Client) each(try func(address string) error) error {
	var causes []error
	first := int(c.first.Load())
	for i := range c.addresses {
		at := (first + i) % len(c.addresses)
		err := try(c.addresses[at])
		if told := broker.KindOf(err); err == nil || told != "" && told != broker.Unavailable {
			c.first.Store(int32(at))
			return err
		}
		causes = append(causes, fmt.Errorf("%s: %w", c.addresses[at], err))
		if errors.As(err, new(*unsigned)) {
			break
		}
	}
	return c.unreachable(causes)
}

// send sends one request to one broker. The caller closes the response's body.
func (c *Client) send(ctx context.Context, address, method, pathAndQuery string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+address+pathAndQuery, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", pathAndQuery, err)
	}
	if method == http.MethodGet && c.reader != nil {
		headers, err := c.reader.Sign(method, pathAndQuery)
		if err != nil {
			return nil, &unsigned{err}
		}
		request.Header = headers
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(request)
}

// readAnswer decodes a 2xx into into (a *[]byte takes it as it is), and anything else into a *broker.Error.
func readAnswer(response *http.Response, into any) error {
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return &broker.Error{Kind: broker.Unavailable, Msg: "the broker's answer broke off", Err: err}
	}
	if len(data) > maxAnswer {
		return &broker.Error{Kind: broker.Invalid, Msg: "the broker's answer is too large"}
	}
	if response.StatusCode != http.StatusOK {
		return problem(response.StatusCode, data)
	}
	if raw, isRaw := into.(*[]byte); isRaw {
		*raw = data
		return nil
	}
	if err := statement.DecodeStrict(data, into); err != nil {
		return &broker.Error{Kind: broker.Invalid, Msg: "the broker's answer is not understood", Hint: "update pim-ssh", Err: err}
	}
	return nil
}
