package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

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

// call asks one broker after the other. Only a broker that is unreachable or says it is unavailable passes the question
// on; every other answer stands.
func (c *Client) call(ctx context.Context, method, pathAndQuery string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var causes []error
	for _, address := range c.addresses {
		response, err := c.send(ctx, address, method, pathAndQuery, body)
		if err != nil {
			causes = append(causes, fmt.Errorf("%s: %w", address, err))
			continue
		}
		err = readAnswer(response, into)
		if !unavailable(err) {
			return err
		}
		causes = append(causes, fmt.Errorf("%s: %w", address, err))
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
			return nil, err
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
