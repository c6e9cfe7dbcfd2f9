# Does as it is told, one line of standard input after the other, with what a page
# defines.  The block tells an error's SQLSTATE, or nil.
$stdout.sync = true

def drive(write, read)
  $stdin.each_line do |line|
    verb, session, id = line.split
    begin
      answer = (verb == "write" ? write : read).call(session, id.to_i)
      answer = "ok" if verb == "write"
    rescue StandardError => error
      state = yield(error) or raise
      answer = "error #{state}"
    end
    puts answer
  end
end
