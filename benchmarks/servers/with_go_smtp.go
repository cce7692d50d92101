// go-smtp (github.com/emersion/go-smtp) with a backend that keeps each message until it has answered.

package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

var (
	port        = flag.String("port", "", "")
	security    = flag.String("tls", "none", "")
	certificate = flag.String("certificate", "", "")
	auth        = flag.Bool("auth", false, "")
	hook        = flag.String("hook", "plain", "")
	messages    int64
)

type backend struct{}

func (backend) Login(_ *smtp.ConnectionState, user, password string) (smtp.Session, error) {
	if user == "user" && password == "secret" {
		return session{}, nil
	}
	return nil, errors.New("unknown user")
}

func (backend) AnonymousLogin(*smtp.ConnectionState) (smtp.Session, error) { return session{}, nil }

type session struct{}

func (session) Reset()                              {}
func (session) Logout() error                       { return nil }
func (session) Mail(string, smtp.MailOptions) error { return nil }
func (session) Rcpt(string) error                   { return nil }

func (session) Data(content io.Reader) (err error) {
	if *hook == "stream" {
		_, err = io.Copy(io.Discard, content)
	} else {
		_, err = io.ReadAll(content)
	}
	if err != nil {
		return err
	}
	if *hook == "wait" {
		turn := make(chan struct{})
		time.AfterFunc(0, func() { close(turn) })
		<-turn
	}
	atomic.AddInt64(&messages, 1)
	return nil
}

func main() {
	flag.Parse()
	server := smtp.NewServer(backend{})
	server.Domain = "bench.example"
	server.MaxMessageBytes = 128 << 20
	server.ReadTimeout, server.WriteTimeout = 300*time.Second, 300*time.Second
	server.EnableSMTPUTF8 = true
	server.AuthDisabled, server.AllowInsecureAuth = !*auth, true
	server.ErrorLog = log.New(io.Discard, "", 0)
	listener, err := net.Listen("tcp", "127.0.0.1:"+*port)
	if err != nil {
		log.Fatal(err)
	}
	if *security != "none" {
		pair, err := tls.LoadX509KeyPair(*certificate, *certificate)
		if err != nil {
			log.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}}
		if *security == "implicit" {
			listener = tls.NewListener(listener, config)
		} else {
			server.TLSConfig = config
		}
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go server.Serve(listener)
	<-ended
	fmt.Println(atomic.LoadInt64(&messages))
}
