// node -e "<this>" -- FOLDER PORT TLS_PORT LIMIT [lmtp]
// Refuses addresses that begin with "reject", and keeps every message as a file whose first line
// names the recipients; a file is complete or not there at all.

const fs = require('node:fs')
const path = require('node:path')
const { SMTPServer } = require('smtp-server')

const [folder, port, tlsPort, limit, manner] = process.argv.slice(1)
let number = 0

function refuse(what) {
  return (address, session, done) => {
    if (!address.address.startsWith('reject')) return done()
    const error = new Error(what)
    error.responseCode = 550
    done(error)
  }
}

function onData(stream, session, done) {
  const name = path.join(folder, `${process.pid}-${++number}`)
  const recipients = session.envelope.rcptTo.map((one) => one.address)
  const file = fs.createWriteStream(`${name}.part`)
  file.write(`${JSON.stringify(recipients)}\n`)
  stream.pipe(file)
  file.on('close', () => {
    if (stream.sizeExceeded) {
      fs.unlinkSync(`${name}.part`)
      const error = new Error('5.3.4 too large')
      error.responseCode = 552
      return done(error)
    }
    fs.renameSync(`${name}.part`, `${name}.eml`)
    done(null, manner === 'lmtp' ? recipients.map(() => 'kept') : 'kept')
  })
}

function onAuth(auth, session, done) {
  const right =
    auth.method === 'CRAM-MD5' ? auth.validatePassword('pass') : auth.password === 'pass' || auth.accessToken === 'token'
  if (auth.username === 'user' && right) return done(null, { user: 'user' })
  done(new Error('no'))
}

const settings = {
  lmtp: manner === 'lmtp',
  key: fs.readFileSync(path.join(folder, 'key.pem')),
  cert: fs.readFileSync(path.join(folder, 'cert.pem')),
  size: Number(limit),
  authOptional: true,
  allowInsecureAuth: true,
  authMethods: ['PLAIN', 'LOGIN', 'CRAM-MD5', 'XOAUTH2'],
  onAuth,
  onMailFrom: refuse('not from you'),
  onRcptTo: refuse('no such user'),
  onData,
  logger: false
}
const quietly = (server) => server.on('error', () => {})
quietly(new SMTPServer(settings)).listen(Number(port), '127.0.0.1')
quietly(new SMTPServer({ ...settings, secure: true })).listen(Number(tlsPort), '127.0.0.1')
