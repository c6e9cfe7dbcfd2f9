# Last return, and what the startup process takes, by the number of waiters
set output "crowd.svg"
set multiplot layout 1,2
set logscale xy
set ylabel "ms, median"
set key below font ",11" maxrows 3
us(positions, contender, until) = strcol(2) eq positions && strcol(3) eq contender && strcol(9) eq until ? $5 : NaN
set title "Time to the last return, by the number of waiters"
plot 'crowd.csv' every ::1 using 1:(us("one position", "lsn_wait", "last return") / 1000) with linespoints lw 2 pt 7 lc rgb ours title "lsn_wait, one position", \
	'' every ::1 using 1:(us("different positions", "lsn_wait", "last return") / 1000) with linespoints lw 2 pt 6 dt 2 lc rgb ours title "lsn_wait, different ones", \
	'' every ::1 using 1:(us("one position", "WAIT FOR LSN", "last return") / 1000) with linespoints lw 2 pt 7 lc rgb theirs title "WAIT FOR LSN, one position", \
	'' every ::1 using 1:(us("different positions", "WAIT FOR LSN", "last return") / 1000) with linespoints lw 2 pt 6 dt 2 lc rgb theirs title "WAIT FOR LSN, different ones"
set title "Startup process, until it is past so many"
plot 'crowd.csv' every ::1 using 1:(us("one position", "lsn_wait", "startup process") / 1000) with linespoints lw 2 pt 7 lc rgb ours title "lsn_wait, one position", \
	'' every ::1 using 1:(us("different positions", "lsn_wait", "startup process") / 1000) with linespoints lw 2 pt 6 dt 2 lc rgb ours title "lsn_wait, different ones", \
	'' every ::1 using 1:(us("one position", "WAIT FOR LSN", "startup process") / 1000) with linespoints lw 2 pt 7 lc rgb theirs title "WAIT FOR LSN, one position", \
	'' every ::1 using 1:(us("different positions", "WAIT FOR LSN", "startup process") / 1000) with linespoints lw 2 pt 6 dt 2 lc rgb theirs title "WAIT FOR LSN, different ones", \
	'' every ::1 using 1:(us("different positions", "nobody", "startup process") / 1000) with linespoints lw 2 pt 6 dt 2 lc rgb others title "nobody waits, different ones"
unset multiplot
