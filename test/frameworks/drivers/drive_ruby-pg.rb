require "./orders"
require "./drive"

if ARGV.include?("bound")
  require "./bound"
  def read(_session, id) = BOUND.exec_params("SELECT count(*) FROM orders WHERE id = $1", [id]).getvalue(0, 0)
end
sessions = Hash.new { |hash, name| hash[name] = {} }
drive(->(session, id) { write(sessions[session], id) }, ->(session, id) { read(sessions[session], id) }) do |error|
  error.result&.error_field(PG::PG_DIAG_SQLSTATE) if error.is_a?(PG::Error)
end
