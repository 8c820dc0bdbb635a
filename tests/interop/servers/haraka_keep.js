// Refuses addresses that begin with "reject", and keeps every message as a file whose first line
// names the recipients; a file is complete or not there at all.

const fs = require('node:fs')
const path = require('node:path')

let number = 0

exports.register = function () {
  this.folder = this.config.get('keep.folder').trim()
}

exports.hook_mail = function (next, connection, params) {
  if (params[0].user?.startsWith('reject')) return next(DENY, 'not from you')
  next(OK)
}

exports.hook_rcpt = function (next, connection, params) {
  if (params[0].user.startsWith('reject')) return next(DENY, 'no such user')
  next(OK)
}

// What comes from somebody who has logged in would be sent on to wherever it is addressed.
exports.hook_queue_outbound = function (...all) {
  return exports.hook_queue.apply(this, all)
}

exports.hook_queue = function (next, connection) {
  const { transaction } = connection
  const name = path.join(this.folder, `${process.pid}-${++number}`)
  const file = fs.createWriteStream(`${name}.part`)
  const recipients = transaction.rcpt_to.map((one) => `${one.user}@${one.host}`)
  file.write(`${JSON.stringify(recipients)}\n`)
  file.on('close', () => {
    fs.renameSync(`${name}.part`, `${name}.eml`)
    next(OK, 'kept')
  })
  transaction.message_stream.pipe(file)
}
